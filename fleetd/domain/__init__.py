"""Decisions without I/O and without a clock: facts and `now` in, an answer out."""
