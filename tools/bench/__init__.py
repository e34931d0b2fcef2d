"""Parts of ``tools/benchmark.py``: what is timed, how, and what is written."""
