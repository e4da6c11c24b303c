"""history.csv: one row per finished epoch, the whole file rewritten atomically."""

import csv
import io

from utils.files import write_text


def read_history(path):
    """The rows of a history.csv as dicts of floats, `epoch` an int."""
    with open(path, newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    return [{**row, "epoch": int(row["epoch"])} for row in rows]


def write_history(path, rows):
    """Writes rows as `read_history` gives them."""
    text = io.StringIO()
    # A run that began with an earlier version may have gained columns.
    columns = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(text, columns, restval="nan", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
