"""Turn a run's files into summaries, figures and a report.

This package imports neither `harness` nor `supsup_core`, except in two notebooks that train.
"""
