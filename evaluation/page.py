"""report.html: a run on one page that needs nothing beside itself. ElementTree builds it: text stays text."""

import base64
import dataclasses
import re
import struct
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

import cv2
import matplotlib

from evaluation.labels import class_color, plain_name
from evaluation.meanings import FIGURES, PICTURES
from evaluation.report import summary
from utils.files import write_text

MAX_PICTURE_BYTES = 300_000  # what is larger becomes a JPEG of a third of its size or less
MAX_PAGE_BYTES = 8 * 2**20  # of all pictures; what comes after is linked
SCALED_WIDTH = 1400  # pixels
MAX_CLASSES = 100  # names in the legend
WIDE = 1.7  # times the height, a picture has a row of its own
# The page may load nothing, whatever its text says.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 1200px; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; overflow-wrap: anywhere; } h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; }
.note { color: #bd1f01; font-weight: bold; } .small { color: #666; font-size: .85rem; }
.pictures { display: grid; gap: 1.5rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); }
.row { grid-column: 1 / -1; } figure { margin: 0; }
img { max-width: 100%; height: auto; border: 1px solid #ddd; }
figcaption { font-size: .9rem; }
pre { background: #f4f4f4; padding: .6rem; margin: .3rem 0 1rem;
  white-space: pre-wrap; overflow-wrap: anywhere; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
td, th { text-align: left; vertical-align: top; padding: .25rem .8rem .25rem 0;
  border-bottom: 1px solid #ddd; }
td { overflow-wrap: anywhere; } td:first-child { min-width: 9rem; }
.classes { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; }
"""


@dataclasses.dataclass(frozen=True)
class Page:
    """What a report says beside the pictures in plots/. All texts may hold anything.

    Attributes:
        title: of the page.
        note: what a reader of the pictures must know; often empty.
        metrics: what metrics.json holds.
        names: of the classes or attributes; () where they are just numbers.
        flags: values by name.
        commands: pairs of what a command does and the command.
    """

    title: str
    note: str
    metrics: dict
    names: tuple
    flags: dict
    commands: list


def write_page(directory, page):
    """Writes report.html of a run directory atomically.

    Args:
        directory: a `Path`, with plots/.
        page: a `Page`.
    """
    html = ElementTree.Element("html", lang="en")
    head, body = ElementTree.SubElement(html, "head"), ElementTree.SubElement(html, "body")
    ElementTree.SubElement(head, "meta", charset="utf-8")
    policy = {"http-equiv": "Content-Security-Policy", "content": POLICY}
    ElementTree.SubElement(head, "meta", policy)
    size = "width=device-width, initial-scale=1"
    ElementTree.SubElement(head, "meta", name="viewport", content=size)
    _add(head, "title", page.title)
    _add(head, "style", STYLE)
    _add(body, "h1", page.title)
    if page.note:
        _add(body, "p", page.note, "note")
    lines = _add(body, "ul")
    for line in summary(page.metrics):
        _add(lines, "li", line)
    if page.names:
        _add_classes(body, page)
    _add_pictures(body, directory)
    _add(body, "h2", "Figures")
    figures = {name: value for name, value in page.metrics.items() if isinstance(value, (int, float))}
    rows = [(name, f"{value:.5g}", FIGURES.get(name, "")) for name, value in figures.items()]
    _add_table(body, ("figure", "value", "meaning"), rows)
    _add(body, "h2", "Commands")
    for what, command in page.commands:
        _add(body, "div", what)
        _add(body, "pre", command)
    _add(body, "h2", "Data")
    _add_table(body, ("property", "value"), page.metrics.get("data", {}).items())
    _add(body, "h2", "Flags")
    _add_table(body, ("flag", "value"), ((f"--{name}", value) for name, value in page.flags.items()))
    # ASCII with references, whatever the names hold.
    text = ElementTree.tostring(html, "us-ascii", method="html").decode("ascii")
    write_text(directory / "report.html", "<!DOCTYPE html>\n" + text + "\n")


def _add(parent, tag, text="", style=""):
    """A new element below another one; `style` is its class."""
    element = ElementTree.SubElement(parent, tag, {"class": style} if style else {})
    element.text = str(text)
    return element


def _add_table(parent, titles, rows):
    table = _add(_add(parent, "div", style="wide"), "table")
    for tag, cells in (("th", titles), *(("td", row) for row in rows)):
        line = _add(table, "tr")
        for cell in cells:
            _add(line, tag, cell)


def _add_classes(body, page):
    """The names of the classes in the colours of the pictures."""
    place = _add(body, "div", style="classes")
    for label in range(min(len(page.names), MAX_CLASSES)):
        item = _add(place, "span")
        mark = _add(item, "span", "\u25cf ")
        mark.set("style", f"color: {matplotlib.colors.to_hex(class_color(label))}")
        mark.tail = plain_name(label, page.names)
    if len(page.names) > MAX_CLASSES:
        _add(place, "span", f"and {len(page.names) - MAX_CLASSES} more")


def _add_pictures(body, directory):
    """All of plots/, in the order of `PICTURES`: inlined while there is room, else linked, as what moves."""
    _add(body, "h2", "Pictures")
    place, links, total = _add(body, "div", style="pictures"), [], 0
    for path in sorted((directory / "plots").glob("*.png"), key=_order):
        content, kind = (None, "") if total > MAX_PAGE_BYTES else _shrunk(path)
        if content is None or total + len(content) > MAX_PAGE_BYTES:
            links.append(path)
            continue
        total += len(content)
        # The curves, for example, could not be read in half the width.
        figure = _add(place, "figure", style="row" if _is_wide(path) else "")
        link = _add(figure, "a")
        link.set("href", _relative(path, directory))
        caption = PICTURES.get(_name(path), "")
        data = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
        ElementTree.SubElement(link, "img", src=data, alt=caption or path.stem)
        _add(figure, "figcaption", f"{path.name}: {caption}" if caption else path.name)
    links += sorted((directory / "plots" / "animations").glob("*.png"))
    links += [path for path in [directory / "plots" / "previews"] if path.is_dir()]
    if links:
        line = _add(body, "p", "In files of their own: ")
        for path in links:
            link = _add(line, "a", path.relative_to(directory))
            link.set("href", _relative(path, directory))
            link.tail = " "


def _name(path):
    """The key of a picture in `PICTURES`."""
    return re.sub(r"_label_\d+$", "_label_LABEL", path.stem)


def _order(path):
    names = list(PICTURES)
    known = _name(path) in names
    number = int("".join(filter(str.isdigit, path.stem)) or 0)
    return names.index(_name(path)) if known else len(names), number, path.name


def _relative(path, directory):
    return quote(Path(path).relative_to(directory).as_posix())


def _is_wide(path):
    """Whether a PNG file is much wider than high, by the numbers at its beginning."""
    with open(path, "rb") as file:
        width, height = struct.unpack(">II", file.read(24)[16:])
    return width > WIDE * height


def _shrunk(path):
    """The content of a picture and its kind: of a large one, as JPEG, at most `SCALED_WIDTH` wide."""
    if path.stat().st_size <= MAX_PICTURE_BYTES:
        return path.read_bytes(), "png"
    picture = cv2.imread(str(path))
    if picture is None:  # a file that somebody else has put there
        return None, ""
    height, width = picture.shape[:2]
    if width > SCALED_WIDTH:
        size = SCALED_WIDTH, max(1, height * SCALED_WIDTH // width)
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes(), "jpeg"
