"""Engines: what fits a panel, keeps states of its series and draws their futures."""
