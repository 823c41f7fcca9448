"""``python -m seqlatent.forecasting``, for where the command ``seqlatent`` is not on the path."""

from seqlatent.forecasting.cli import main

if __name__ == "__main__":
    main()
