"""Labels of Python source from its own grammar: `tokenize` and `ast` say what every character is.
Nothing is annotated.

Positions: `ast` counts columns in UTF-8 bytes, `tokenize` in characters; both end a line only at a
newline (after CR LF and CR are read as one), never at a form feed. Versions: up to Python 3.11 an
f-string is one string token and the positions of the expressions in it are unreliable, so it is
labelled as a whole; from 3.12 on its expressions are labelled like others.
"""

import ast
import builtins
import io
import keyword
import re
import tokenize
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

_WORDS = {
    "token_type": "name keyword string docstring comment op bracket number newline line_break "
    "space",
    "in_docstring": "no yes",
    "in_comment": "no yes",
    "in_string": "no yes",  # docstrings included
    "indentation": "0 1 2 3 4 5 6+",  # of the block, in levels
    "brackets": "0 1 2 3 4+",  # open ones, the bracket itself included
    # of an identifier
    "role": "none load store attribute method_call call builtin_call builtin parameter "
    "keyword_argument function_name class_name imported_name self other",
    # the innermost one
    "construct": "module call def assign class tuple if binop dict list compare subscript for with "
    "import try return except boolop while comprehension set fstring lambda ifexp raise yield "
    "assert match",
    "scope": "module class function method",
}
VALUES = {family: tuple(words.split()) for family, words in _WORDS.items()}
FAMILIES = tuple(VALUES)
# statements and expressions by the names of their classes: many are called as their construct is
CONSTRUCT_OF = {
    kind.__name__: kind.__name__.lower()
    for kind in (*ast.stmt.__subclasses__(), *ast.expr.__subclasses__())
    if kind.__name__.lower() in VALUES["construct"]
} | {
    "ImportFrom": "import",
    "AugAssign": "assign",
    "AnnAssign": "assign",
    "ExceptHandler": "except",
    "TryStar": "try",
    "FunctionDef": "def",
    "AsyncFunctionDef": "def",
    "ClassDef": "class",
    "AsyncFor": "for",
    "AsyncWith": "with",
    "ListComp": "comprehension",
    "SetComp": "comprehension",
    "DictComp": "comprehension",
    "GeneratorExp": "comprehension",
    "YieldFrom": "yield",
    "JoinedStr": "fstring",
    "TemplateStr": "fstring",
}
DOCUMENTED = (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
TOKEN_TYPES = {
    tokenize.NUMBER: "number",
    tokenize.COMMENT: "comment",
    tokenize.NEWLINE: "newline",
    tokenize.NL: "line_break",
}
STRING_STARTS, STRING_ENDS = ("FSTRING_START", "TSTRING_START"), ("FSTRING_END", "TSTRING_END")
STRINGS = {"STRING", *STRING_STARTS, "FSTRING_MIDDLE", "TSTRING_MIDDLE", *STRING_ENDS}
FSTRING_INSIDE = hasattr(tokenize, "FSTRING_START")  # Python 3.12: f-strings are tokenised inside
BUILTINS = frozenset(dir(builtins))
HEADER = re.compile(r"(?:async[\s\\]+)?(?:def|class)[\s\\]+")
# what the parser refuses with
UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError, tokenize.TokenError)


def python_labels(text: str) -> np.ndarray:
    """Labels of Python source, `[characters, len(FAMILIES)]` int16, numbers into `VALUES`.

    Raises `ValueError` with the reason where this Python's parser refuses the text.
    """
    plain, back = _plain_lines(text)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the source's own invalid escapes
            tree = ast.parse(plain)
        tokens = list(tokenize.generate_tokens(io.StringIO(plain).readline))
    except UNREADABLE as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    painter = _Painter(plain)
    painter.paint_tokens(tokens)
    painter.paint_tree(tree)
    return painter.labels[back]


def _plain_lines(text: str) -> tuple[str, np.ndarray]:
    """The text with newlines only and no byte-order mark, and for every character of `text` its
    place there.
    """
    if text.startswith("\ufeff"):
        text = "\f" + text[1:]
    dropped = np.zeros(len(text), bool)  # the CR of a CR LF
    for match in re.finditer("\r\n", text):
        dropped[match.start()] = True
    plain = text.replace("\r\n", "\n").replace("\r", "\n")
    return plain, np.cumsum(~dropped) - ~dropped


class _Painter:
    """The label array of one text, painted from outside to inside: what is painted later lies
    deeper.
    """

    def __init__(self, text: str):
        self.text = text
        self.lines = text.split("\n")
        self.starts = np.cumsum([0] + [len(line) + 1 for line in self.lines])
        self.labels = np.zeros((len(text), len(FAMILIES)), np.int16)
        self.columns = {name: self.labels[:, i] for i, name in enumerate(FAMILIES)}
        self.columns["token_type"][:] = VALUES["token_type"].index("space")
        # identifiers: where the one ends that starts here, and starts that ends here
        self.name_end: dict[int, int] = {}
        self.name_start: dict[int, int] = {}

    def put(self, family: str, start: int, end: int, value: str) -> None:
        self.columns[family][start:end] = VALUES[family].index(value)

    # Tokens: type, string, comment, depths --------------------------------------------------------

    def paint_tokens(self, tokens: list[tokenize.TokenInfo]) -> None:
        depth = brackets = fstrings = done = 0
        for token in tokens:
            start, end = (
                int(self.starts[row - 1]) + column for row, column in (token.start, token.end)
            )
            kind = tokenize.tok_name[token.type]
            depth += (kind == "INDENT") - (kind == "DEDENT")
            fstrings += kind in STRING_STARTS
            self._paint_depths(done, start, depth, brackets)  # blanks before it
            brackets += kind == "OP" and token.string in "([{"
            self._paint_depths(start, end, depth, brackets)
            brackets -= kind == "OP" and token.string in ")]}"
            if end > start and (value := _type_of(token, kind)):
                self.put("token_type", start, end, value)
                self._note_name(start, end, token.string, value)
            if fstrings or kind in STRINGS:
                self.put("in_string", min(done, start) if fstrings else start, end, "yes")
            if kind == "COMMENT":
                self.put("in_comment", start, end, "yes")
            fstrings -= kind in STRING_ENDS
            done = max(done, end)

    def _paint_depths(self, start: int, end: int, depth: int, brackets: int) -> None:
        self.columns["indentation"][start:end] = min(depth, len(VALUES["indentation"]) - 1)
        self.columns["brackets"][start:end] = min(brackets, len(VALUES["brackets"]) - 1)

    def _note_name(self, start: int, end: int, text: str, value: str) -> None:
        if value == "name":
            self.name_end[start], self.name_start[end] = end, start
            self.put("role", start, end, "self" if text in ("self", "cls") else "other")

    # Tree: docstring, role, construct, scope ------------------------------------------------------

    def paint_tree(self, tree: ast.Module) -> None:
        todo: list[tuple[ast.AST, str]] = [(tree, "module")]
        called: set[int] = set()  # ids of what a call calls
        while todo:
            node, scope = todo.pop()
            if isinstance(node, ast.Call):
                called.add(id(node.func))
            scope = self._paint_node(node, scope)
            self._paint_role(node, id(node) in called)
            if FSTRING_INSIDE or not isinstance(node, ast.JoinedStr):
                todo += ((child, scope) for child in ast.iter_child_nodes(node))

    def _paint_node(self, node: ast.AST, scope: str) -> str:
        """Construct, scope and docstring; returns the scope of the node's children."""
        construct = CONSTRUCT_OF.get(type(node).__name__)
        if construct is not None:
            start, end = self.span(node)
            self.put("construct", start, end, construct)
            if construct in ("def", "class"):
                function = "method" if scope == "class" else "function"
                scope = "class" if construct == "class" else function
                self.put("scope", start, end, scope)
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            start, end = self.span(node.body[0])
            self.put("token_type", start, end, "docstring")
            self.put("in_docstring", start, end, "yes")
            self.put("in_string", start, end, "yes")
        return scope

    def _paint_role(self, node: ast.AST, called: bool) -> None:
        for start, role in self._roles(node, called):
            end = self.name_end.get(start)
            if end is not None and self.columns["role"][start] == VALUES["role"].index("other"):
                self.put("role", start, end, role)

    def _roles(self, node: ast.AST, called: bool) -> Iterator[tuple[int, str]]:
        """Where the identifiers of one node start, and their roles."""
        match node:
            case ast.Name():
                plain = "store" if isinstance(node.ctx, ast.Store) else "load"
                role, builtin = ("call", "builtin_call") if called else (plain, "builtin")
                yield self.span(node)[0], builtin if node.id in BUILTINS else role
            case ast.Attribute():
                yield (
                    self.name_start.get(self.span(node)[1], -1),
                    "method_call" if called else "attribute",
                )
            case ast.arg():
                yield self.span(node)[0], "parameter"
            case ast.keyword(arg=str()):
                yield self.span(node)[0], "keyword_argument"
            case ast.alias():
                start, end = self.span(node)
                yield from (
                    (place, "imported_name")
                    for place in range(start, end)
                    if place in self.name_end
                )
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                header = HEADER.match(self.text, self.span(node)[0])
                role = "class_name" if isinstance(node, ast.ClassDef) else "function_name"
                yield header.end() if header else -1, role

    def span(self, node: ast.AST) -> tuple[int, int]:
        """Start and end of a node in characters."""
        place: Any = node  # not every node has one, those asked about have
        start = self._place(place.lineno, place.col_offset)
        return start, self._place(place.end_lineno, place.end_col_offset)

    def _place(self, row: int, column: int) -> int:
        """A row and a column in UTF-8 bytes -> a place in the text."""
        line = self.lines[row - 1]
        if not line.isascii():
            column = len(line.encode()[:column].decode())
        return int(self.starts[row - 1]) + column


def _type_of(token: tokenize.TokenInfo, kind: str) -> str | None:
    """The label of a token; None for indentation, which stays space."""
    if kind == "NAME":
        return "keyword" if keyword.iskeyword(token.string) else "name"
    if kind == "OP":
        return "bracket" if token.string in "()[]{}" else "op"
    return "string" if kind in STRINGS else TOKEN_TYPES.get(token.type)
