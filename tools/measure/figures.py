"""What rows do with their runs: pick, take the middle, judge."""

import statistics

from rivals import spread


def subjects(runs):
    """Who took part, in order of appearance."""
    return list(dict.fromkeys(run["subject"] for run in runs))


def pick(runs, key, **where):
    """The figures called `key` of the runs that agree with `where`."""
    return [run[key] for run in runs if key in run and all(run.get(name) == value for name, value in where.items())]


def middle(runs, key, **where):
    """Their median; None without runs."""
    values = pick(runs, key, **where)
    return statistics.median(values) if values else None


def cell(runs, key, digits, **where):
    """Median with least and most, for a table; a dash without runs."""
    values = pick(runs, key, **where)
    return spread(values, digits) if values else "-"


def ratio(above, below):
    return above / below if above is not None and below else None


def at_most(what, figure, bar):
    """A verdict on a ratio; without figures nothing is judged."""
    return what, figure, f"≤ {bar:g}", None if figure is None else figure <= bar


def at_least(what, figure, bar):
    return what, figure, f"≥ {bar:g}", None if figure is None else figure >= bar
