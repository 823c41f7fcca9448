"""How long does `import seqlatent` take beyond `import torch`? The median of fresh interpreters."""

import argparse
import statistics
import subprocess
import sys

CODE = (
    "from time import perf_counter as now; a = now(); import torch; b = now();"
    "import seqlatent; print(b - a, now() - b)"
)


def seconds() -> tuple[float, float]:
    """Returns the seconds of `import torch`, and of `import seqlatent` after it."""
    run = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    torch, seqlatent = map(float, run.stdout.split())
    return torch, seqlatent


def main() -> None:
    """Prints one sentence."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9, help="fresh interpreters that are counted")
    runs = parser.parse_args().runs
    seconds()  # the first one also compiles and reads from a cold disk
    torch, seqlatent = zip(*(seconds() for _ in range(runs)), strict=True)
    print(
        f"import seqlatent takes {statistics.median(seqlatent):.3f} s beyond torch's own "
        f"{statistics.median(torch):.2f} s (median of {runs} fresh interpreters)."
    )


if __name__ == "__main__":
    main()
