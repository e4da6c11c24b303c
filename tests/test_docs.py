"""The pages: links lead somewhere, commands are read, tables are those of the code, the README is short."""

import re
import shlex

import pytest
from conftest import ROOT

import main
from training.help import PAGE, markdown_page
from utils.errors import UserError

PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(
    (ROOT / "docs").glob("*.md")
)


def anchor(heading):
    """The anchor that a heading has in a rendered page."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            continue
        name, _, fragment = target.partition("#")
        other = (page.parent / name).resolve() if name else page
        assert other.exists(), target
        if fragment:
            headings = re.findall(r"^#+ (.*)$", other.read_text(), re.MULTILINE)
            assert fragment in [anchor(heading) for heading in headings], target


def commands():
    for page in PAGES:
        for line in re.findall(r"python main\.py ([^`\n#|]*)", page.read_text()):
            yield pytest.param(line.strip(), id=f"{page.stem} {line.strip()[:60]}")


def words_of(line):
    """The words of a command, but for those that stand for the reader's own."""
    return [word for word in shlex.split(line) if word not in ("...", "DIR") and not word.endswith("/")]


@pytest.mark.parametrize("line", commands())
def test_commands_are_read(line, monkeypatch):
    """With --resume they need a run, so only the words are read then."""
    monkeypatch.chdir(ROOT)
    words = words_of(line)
    if "--resume" in words:
        with pytest.raises(UserError, match=r"is no folder|holds no run"):
            main.read_config(["main.py", *words])
    elif "--data_dir" not in words and "mine." not in line:  # the reader's own files
        assert main.read_config(["main.py", *words]) is not None or "--help" in words


NO_TRAINING = {"--resume", "--help", "--data_dir", "--export", "--explore"}
# In a flag file, where settings may stand that mean nothing to a model.
TINY = "--data=digits\n--n_hidden=16\n--d_hidden=16\n--conv_widths=4,8\n--n_epoch=1\n"


@pytest.mark.slow
@pytest.mark.parametrize("line", commands())
def test_commands_train(line, monkeypatch, tmp_path):
    """All but the sizes and the number of epochs as it stands on the page."""
    words = words_of(line)
    if not words or NO_TRAINING & set(words) or "mine." in line:
        pytest.skip("needs a run or a folder of data, or trains nothing")
    monkeypatch.chdir(ROOT)
    (tmp_path / "tiny.flags").write_text(TINY)
    words += [f"--flagfile={tmp_path / 'tiny.flags'}", "--run_dir", str(tmp_path / "run")]
    assert main.main(["main.py", *words]) == 0
    assert (tmp_path / "run" / "metrics.json").is_file()


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        named = set(re.findall(r"`make ([a-z-]+)", page.read_text()))
        assert named <= targets, page


def test_the_page_of_flags_is_that_of_the_code():
    assert PAGE.read_text() == markdown_page(), "write it anew with `make flags`"


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_the_figures_of_the_readme_are_those_of_the_results():
    readme, results = (path.read_text() for path in (ROOT / "README.md", ROOT / "docs" / "results.md"))
    table = readme[readme.index("<!-- results") :].split("\n\n")[0]
    figures, measured = (set(re.findall(r"\d+\.\d+", text)) for text in (table, results))
    assert figures
    assert figures <= measured


def test_all_files_that_the_pages_name_exist():
    for page in PAGES:
        for name in re.findall(
            r"`((?:models|training|evaluation|utils|data|configs|experiments)/[\w/.]+)`",
            page.read_text(),
        ):
            assert (ROOT / name).exists(), (page.name, name)
