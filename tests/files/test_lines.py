"""Lines, pages and headings of each kind of file."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerankd import Index
from rerankd.files import html
from rerankd.files.lines import Line, lines_of
from rerankd.files.text import NotText

PAGE = """<!doctype html>
<html><head><title>Keys — handbook</title>
<style>p { color: red }</style><script>let nothing = "seen"</script></head>
<body>
<nav><a href="/">Home</a><nav>inner</nav> next</nav>
<div class="sidebar" role="navigation"><div>Contents</div></div>
<h1>Keys<a href="#keys">¶</a></h1>
<p>A key is <b>ro</b>tated
on&nbsp;the page &lt;Keys&gt;.</p>
<h2>Limits</h2>
<table><tr><td>calls</td><td>60</td></tr></table>
<pre>one
  two</pre>
<footer>© 2030</footer></body></html>"""


def test_html_is_what_a_reader_sees_with_the_lines_of_its_source(tmp_path: Path) -> None:
    path = tmp_path / "keys.html"
    path.write_text(PAGE)
    assert [line for line in lines_of(path) if line.text] == [
        Line(2, "Keys — handbook"),
        Line(7, "Keys", 1),
        Line(8, "A key is rotated"),
        Line(9, "on the page <Keys>."),
        Line(10, "Limits", 2),
        Line(11, "calls 60"),
        Line(12, "one"),
        Line(13, "  two"),
    ]


@given(st.text("<>/!-&;abp \n'\"=", max_size=200))
def test_any_text_is_read_as_html(text: str) -> None:
    lines = html.lines_of(text)
    numbers = [number for number, *_ in lines]
    assert numbers == sorted(numbers) and all("\n" not in line for _, line, *_ in lines)


def test_a_list_of_links_is_no_part_of_a_page(tmp_path: Path) -> None:
    entries = "".join(
        f"<li>key {number}<ul><li><a href='#'>rotation of keys, part {number}</a></ul>" for number in range(20)
    )
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "index.html").write_text(f"<h1>Index</h1><ul>{entries}</ul>")
    (tmp_path / "files" / "a.html").write_text("<p>The <a href='#'>rotation of keys</a> is <a href='#'>easy</a>.</p>")
    index = Index(tmp_path / "files", folder=tmp_path / "index")
    assert [hit.path for hit in index.search("rotation of keys")] == ["a.html"]


def test_markdown_has_headings_outside_of_code(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text("# Keys\n\n```sh\n# no heading\n```\n## Rotation\n#tag\n")
    assert [line for line in lines_of(path) if line.level] == [Line(1, "# Keys", 1), Line(6, "## Rotation", 2)]


def test_a_plain_file_has_no_headings_and_gzip_is_unpacked(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("# a comment\n")
    assert lines_of(tmp_path / "a.py")[0] == Line(1, "# a comment")
    (tmp_path / "a.md.gz").write_bytes(gzip.compress(b"# Keys"))
    assert lines_of(tmp_path / "a.md.gz") == [Line(1, "# Keys", 1)]


def pdf(*pages: str) -> bytes:
    """The smallest PDF file with a line on each page."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b"", b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    kids = []
    for text in pages:
        drawn = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode()
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(drawn), drawn))
        box = b"/MediaBox [0 0 612 792] /Resources << /Font << /F1 3 0 R >> >>"
        objects.append(b"<< /Type /Page /Parent 2 0 R %s /Contents %d 0 R >>" % (box, len(objects)))
        kids.append(b"%d 0 R" % len(objects))
    objects[1] = b"<< /Type /Pages /Kids [%s] /Count %d >>" % (b" ".join(kids), len(kids))
    file, places = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(file))
        file += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    end = b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(places) + 1, len(file))
    return file + b"xref\n0 %d\n0000000000 65535 f \n" % (len(places) + 1) + table + end


WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
PACKAGE = "http://schemas.openxmlformats.org/package/2006"
RELATION = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"
MAIN = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"


def write_docx(path: Path, heading: str, text: str) -> None:
    """The smallest Word file with a heading and a paragraph."""
    title = f'<w:p><w:pPr><w:pStyle w:val="Heading1"/></w:pPr><w:r><w:t>{heading}</w:t></w:r></w:p>'
    body = f"{title}<w:p><w:r><w:t>{text}</w:t></w:r></w:p>"
    types = f'<Override PartName="/word/document.xml" ContentType="{MAIN}"/>'
    link = f'<Relationship Id="r1" Type="{RELATION}" Target="word/document.xml"/>'
    with zipfile.ZipFile(path, "w") as package:
        package.writestr("[Content_Types].xml", f'<Types xmlns="{PACKAGE}/content-types">{types}</Types>')
        package.writestr("_rels/.rels", f'<Relationships xmlns="{PACKAGE}/relationships">{link}</Relationships>')
        package.writestr("word/document.xml", f'<w:document xmlns:w="{WORD}"><w:body>{body}</w:body></w:document>')


def test_pdf_and_office_files_are_found_by_page_and_heading(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "a.pdf").write_bytes(pdf("Bills come by mail.", "A key is rotated on the page Keys."))
    write_docx(folder / "b.docx", "Refunds", "Money comes back within a week.")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    index = Index(folder, folder=tmp_path / "index")
    [bills, keys] = index.search("bills, rotated key")
    assert {bills.source, keys.source} == {"a.pdf:1", "a.pdf:2"}
    [refund] = index.search("refunds")
    assert refund.path == "b.docx" and "Money comes back" in refund.text
    [note] = index.last_update.notes
    assert note.startswith("left out: broken.pdf: ") and "cannot be converted" in note


def test_a_file_whose_converter_is_missing_is_named_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "a.pdf").write_bytes(pdf("A key is rotated."))
    with monkeypatch.context() as without:
        without.setitem(__import__("sys").modules, "kreuzberg", None)
        index = Index(folder, folder=tmp_path / "index")
        assert "a.pdf" in index.last_update.notes[0] and "rerankd[documents]" in index.last_update.notes[0]
        assert index.search("rotated") == []
    index.update()
    assert [hit.source for hit in index.search("rotated")] == ["a.pdf:1"]


def test_a_scan_has_no_text(tmp_path: Path) -> None:
    (tmp_path / "scan.pdf").write_bytes(pdf(""))
    with pytest.raises(NotText, match=r"scan\.pdf has no text"):
        lines_of(tmp_path / "scan.pdf")
