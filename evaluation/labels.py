"""How classes are shown: their colours, and their names where the data has some."""

import matplotlib

# Ten colours that stay apart for readers with any colour vision (Petroff 2021).
CLASS_COLORS = matplotlib.color_sequences["petroff10"]
MAX_NAME = 20  # characters of a class's name


def class_color(label):
    """The colour of a class; with more classes than colours they begin again."""
    return CLASS_COLORS[label % len(CLASS_COLORS)]


def plain_name(label, names):
    """A class as text: its number, and its name where it has one, without what no picture can show.

    Args:
        names: of the classes; () where they are just numbers.
    """
    name = f"{label} {names[label][:MAX_NAME]}" if names else str(label)
    return "".join(c if c.isprintable() else "?" for c in name)


def class_name(label, names):
    """The same for matplotlib, where a dollar would begin a formula."""
    return plain_name(label, names).replace("$", r"\$")


def class_names(labels, names):
    """`class_name` of each of some labels, a list."""
    return [class_name(int(label), names) for label in labels]
