"""A restricted pickle interpreter: it builds plain data and never runs or imports what a pickle names.

Pickles are programs. This one interprets every opcode of protocols 0 to 5 that makes plain data, and resolves a
global name in a table of ours only: either to a function of ours that checks its arguments, or to an inert class whose
instances merely hold what the pickle says of them. Any other name, and any opcode that would call something
else, raises UnsafeFileError. Lengths are checked against the bytes that remain before anything is allocated.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import Any

from zoonet.formats.pickle_names import Allowance, Buildable, Inert, InertClass, Known, Resolver, StatefulDict
from zoonet.ops.errors import FormatError, UnsafeFileError

_UINT8, _UINT16, _UINT32, _UINT64 = struct.Struct("<B"), struct.Struct("<H"), struct.Struct("<I"), struct.Struct("<Q")
_INT32, _DOUBLE = struct.Struct("<i"), struct.Struct(">d")
_MAX_LINE = 4096
_MAX_OPCODES = 4_000_000  # an opcode of one byte can make an object of 64: this bounds memory and time
_MAX_INTEGER_BYTES = 256  # longer integers take quadratic time to print and mean nothing in a weights file
_MAX_KEY = 64  # parts of a tuple that is a key: each use looks at all of them


def no_persistent_ids(identifier: Any) -> Any:
    """Refuse persistent identifiers, which plain pickles do not have."""
    raise FormatError("the pickle refers to data outside itself")


class Unpickler:
    """Interprets one pickle of `data` from `position`; after `load`, `position` is where it ended and
    `opcodes` how many opcodes it took.

    resolve: gives the meaning of a global name (see `resolver`). persistent_load: gives the object for a
    persistent identifier. allowance: what its calls may copy, shared by the pickles of a file of many; by the size of
    `data` where None. Raises FormatError (corrupt) and UnsafeFileError (asks for more than data).
    """

    def __init__(
        self,
        data: bytes | memoryview,
        resolve: Resolver,
        persistent_load: Callable[[Any], Any] = no_persistent_ids,
        position: int = 0,
        allowance: Allowance | None = None,
    ) -> None:
        self.data = memoryview(data)
        self.position = position
        self._resolve = resolve
        self._persistent_load = persistent_load
        self._allowance = allowance or Allowance(len(self.data))
        self._stack: list[Any] = []  # what stands above the last mark
        self._below: list[list[Any]] = []  # what stands below each mark
        self._memo: dict[int, Any] = {}
        self.opcodes = 0

    def load(self) -> Any:
        """Return the object that the pickle describes."""
        data, end, handlers = self.data, len(self.data), _HANDLERS
        try:
            for count in range(_MAX_OPCODES):
                if self.position >= end:
                    raise FormatError("the pickle ends before its STOP opcode", fix="the file is truncated")
                opcode = data[self.position]
                self.position += 1
                if opcode == 0x2E:  # STOP
                    self.opcodes = count + 1
                    return self._stop()
                handlers[opcode](self)
            raise UnsafeFileError("the pickle is absurdly long", expected=f"at most {_MAX_OPCODES} opcodes")
        except (IndexError, KeyError, TypeError, ValueError, OverflowError, struct.error) as error:
            if isinstance(error, FormatError):
                raise
            raise FormatError(
                f"the pickle is corrupt near byte {self.position}",
                received=f"{type(error).__name__}: {error}"[:200],
            ) from error

    def _stop(self) -> Any:
        if len(self._stack) != 1 or self._below:
            raise FormatError("the pickle ends with other than one object")
        return self._stack[0]

    # Reading

    def take(self, count: int) -> memoryview:
        """Return the next `count` bytes."""
        if count < 0 or count > len(self.data) - self.position:
            raise FormatError(
                "the pickle ends inside an element",
                expected=f"{count} bytes",
                received=f"{len(self.data) - self.position}",
            )
        self.position += count
        return self.data[self.position - count : self.position]

    def unpack(self, layout: struct.Struct) -> Any:
        """Return one number."""
        value = layout.unpack_from(self.data, self.position)[0]
        self.position += layout.size
        return value

    def line(self) -> bytes:
        """Return the bytes before the next newline."""
        window = bytes(self.data[self.position : self.position + _MAX_LINE])
        length = window.find(b"\n")
        if length < 0:
            raise FormatError("a line of the pickle does not end")
        self.position += length + 1
        return window[:length]

    # The stack

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        self._stack.append(value)

    def pop(self) -> Any:
        """Take a value off the stack."""
        return self._stack.pop()

    def pop_mark(self) -> list[Any]:
        """Take everything above the last mark off the stack, and the mark."""
        values = self._stack
        self._stack = self._below.pop()
        return values

    # Opcodes

    def _op_mark(self) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _op_pop(self) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self.pop_mark()

    def _op_pop_mark(self) -> None:
        self.pop_mark()

    def _op_dup(self) -> None:
        self._stack.append(self._stack[-1])

    def _op_int(self) -> None:
        text = self.line()
        self.push({b"00": False, b"01": True}[text] if text in (b"00", b"01") else _integer(text))

    def _op_long1(self) -> None:
        self._push_long(self.unpack(_UINT8))

    def _op_long4(self) -> None:
        self._push_long(self.unpack(_INT32))

    def _push_long(self, length: int) -> None:
        if length > _MAX_INTEGER_BYTES:
            raise UnsafeFileError("the pickle has an absurdly long integer", received=f"{length} bytes")
        self.push(int.from_bytes(self.take(length), "little", signed=True))

    def _op_string(self) -> None:
        text = self.line()
        if len(text) < 2 or text[:1] not in (b"'", b'"') or text[-1:] != text[:1]:
            raise FormatError("the pickle has a string without quotes")
        self.push(_text_of_python2(_ESCAPE.sub(_unescape, text[1:-1])))

    def _op_unicode(self) -> None:
        self.push(self.line().decode("raw_unicode_escape"))

    def _op_append(self) -> None:
        value = self.pop()
        self._extend([value])

    def _op_appends(self) -> None:
        self._extend(self.pop_mark())

    def _extend(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is list:
            target.extend(values)
        elif type(target) is Inert:
            target.elements.extend(values)
        else:
            raise UnsafeFileError("the pickle appends to what is not a list", received=type(target).__name__)

    def _op_setitem(self) -> None:
        value = self.pop()
        key = self.pop()
        self._update([key, value])

    def _op_setitems(self) -> None:
        self._update(self.pop_mark())

    def _update(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is Inert:
            target = target.items
        if not isinstance(target, dict):
            raise UnsafeFileError("the pickle sets items of what is not a dict", received=type(target).__name__)
        if len(values) % 2:
            raise FormatError("the pickle has a key without a value")
        for index in range(0, len(values), 2):
            target[hashable(values[index])] = values[index + 1]

    def _op_additems(self) -> None:
        values = self.pop_mark()
        target = self._stack[-1]
        if type(target) is not set:
            raise UnsafeFileError("the pickle adds to what is not a set", received=type(target).__name__)
        target.update(hashable(value) for value in values)

    def _op_dict(self) -> None:
        values = self.pop_mark()
        self.push({})
        self._update(values)

    def _op_tuple1(self) -> None:
        self._stack[-1] = (self._stack[-1],)

    def _op_tuple(self, count: int) -> None:
        values = tuple(self._stack[-count:])
        if len(values) != count:
            raise FormatError("the pickle makes a tuple of values that are not there")
        self._stack[-count:] = [values]

    def _op_uint8(self) -> None:
        self._stack.append(self.data[self.position])
        self.position += 1

    def _op_get_uint8(self) -> None:
        self._stack.append(self._memo[self.data[self.position]])
        self.position += 1

    def _op_put_uint8(self) -> None:
        self._memo[self.data[self.position]] = self._stack[-1]
        self.position += 1

    def _op_refused(self) -> None:
        opcode = self.data[self.position - 1]
        raise FormatError(f"the pickle has an opcode that does not exist or is refused: {opcode:#04x}")

    def _op_get(self, index: int) -> None:
        self.push(self._memo[index])

    def _op_put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def _op_global(self) -> None:
        module = self.line().decode()
        self.push(self._resolve(module, self.line().decode()))

    def _op_stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise FormatError("the pickle names a global by what is not a string")
        self._allowance.spend((module, name))
        self.push(self._resolve(module, name))

    def _op_reduce(self) -> None:
        arguments = self.pop()
        self._call(self.pop(), arguments)

    def _op_newobj_ex(self) -> None:
        keywords, arguments = self.pop(), self.pop()
        if keywords:
            raise UnsafeFileError("the pickle makes an object with keyword arguments")
        self._call(self.pop(), arguments)

    def _op_obj(self) -> None:
        values = self.pop_mark()
        self._call(values[0], tuple(values[1:]))

    def _op_inst(self) -> None:
        module = self.line().decode()
        target = self._resolve(module, self.line().decode())
        self._call(target, tuple(self.pop_mark()))

    def _call(self, target: Any, arguments: Any) -> None:
        if type(arguments) is not tuple:
            raise FormatError("the pickle calls with arguments that are not a tuple")
        self._allowance.spend(arguments)
        if type(target) is Known:
            self.push(target.build(*arguments))
        elif type(target) is InertClass:
            self.push(Inert(target.name, arguments))
        else:
            raise UnsafeFileError("the pickle calls what is not a known class", received=type(target).__name__)

    def _op_build(self) -> None:
        state = self.pop()
        target = self.pop()
        if isinstance(target, Buildable):
            self._allowance.spend(state if type(state) is tuple else (state,))
            target = target.set_state(state)
        elif type(target) is Inert:
            target.state = state
        elif type(target) is not StatefulDict:
            raise UnsafeFileError("the pickle sets the state of plain data", received=type(target).__name__)
        self.push(target)

    def _op_binary_persistent_id(self) -> None:
        identifier = self.pop()
        self._allowance.spend(identifier if type(identifier) is tuple else (identifier,))
        self.push(self._persistent_load(identifier))

    def _op_persistent_id(self) -> None:
        self.push(self._persistent_load(self.line().decode("ascii")))

    def _op_protocol(self) -> None:
        version = self.unpack(_UINT8)
        if version > 5:
            raise FormatError("the pickle is of an unknown protocol", expected="0 to 5", received=version)

    def _op_frame(self) -> None:
        length = self.unpack(_UINT64)
        if length > len(self.data) - self.position:
            raise FormatError("the pickle ends inside a frame", fix="the file is truncated")


def hashable(key: Any) -> Any:
    """Check that a key is plain: hashing nested tuples that share their parts can take exponential time."""
    plain = (str, bytes, int, float, type(None))
    if isinstance(key, tuple) and len(key) <= _MAX_KEY and all(isinstance(part, plain) for part in key):
        return key
    if key is None or isinstance(key, (str, bytes, int, float, complex)):
        return key
    raise UnsafeFileError("the pickle uses as a key what is not a string or a number", received=type(key).__name__)


def _integer(text: bytes) -> int:
    if len(text) > 2 * _MAX_INTEGER_BYTES:
        raise UnsafeFileError("the pickle has an absurdly long integer")
    return int(text.removesuffix(b"L"))


# The escapes that Python 2 writes for a string of bytes.
_ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]{2}|.)", re.DOTALL)
_ESCAPED = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"\\": b"\\", b"'": b"'", b'"': b'"'}


def _unescape(match: re.Match[bytes]) -> bytes:
    code = match[1]
    return bytes([int(code[1:], 16)]) if len(code) == 3 else _ESCAPED[code]


def _text_of_python2(raw: bytes) -> str | bytes:
    """A Python 2 string is text or bytes: text where it is ASCII."""
    return raw.decode() if raw.isascii() else raw


def _text(length_layout: struct.Struct) -> Callable[[Unpickler], None]:
    def handle(unpickler: Unpickler) -> None:
        unpickler.push(str(unpickler.take(unpickler.unpack(length_layout)), "utf-8", "surrogatepass"))

    return handle


def _raw(length_layout: struct.Struct) -> Callable[[Unpickler], None]:
    def handle(unpickler: Unpickler) -> None:
        unpickler.push(bytes(unpickler.take(unpickler.unpack(length_layout))))

    return handle


def _python2(length_layout: struct.Struct) -> Callable[[Unpickler], None]:
    def handle(unpickler: Unpickler) -> None:
        unpickler.push(_text_of_python2(bytes(unpickler.take(unpickler.unpack(length_layout)))))

    return handle


def _number(layout: struct.Struct) -> Callable[[Unpickler], None]:
    return lambda unpickler: unpickler.push(unpickler.unpack(layout))


def _constant(make: Callable[[], Any]) -> Callable[[Unpickler], None]:
    return lambda unpickler: unpickler._stack.append(make())


def _handlers() -> list[Callable[[Unpickler], None]]:
    table: dict[bytes, Callable[[Unpickler], None]] = {
        b"(": Unpickler._op_mark,
        b"0": Unpickler._op_pop,
        b"1": Unpickler._op_pop_mark,
        b"2": Unpickler._op_dup,
        b"F": lambda u: u.push(float(u.line())),
        b"I": Unpickler._op_int,
        b"J": _number(_INT32),
        b"K": Unpickler._op_uint8,
        b"L": lambda u: u.push(_integer(u.line())),
        b"M": _number(_UINT16),
        b"N": _constant(lambda: None),
        b"P": Unpickler._op_persistent_id,
        b"Q": Unpickler._op_binary_persistent_id,
        b"R": Unpickler._op_reduce,
        b"S": Unpickler._op_string,
        b"T": _python2(_UINT32),
        b"U": _python2(_UINT8),
        b"V": Unpickler._op_unicode,
        b"X": _text(_UINT32),
        b"a": Unpickler._op_append,
        b"b": Unpickler._op_build,
        b"c": Unpickler._op_global,
        b"d": Unpickler._op_dict,
        b"}": _constant(dict),
        b"e": Unpickler._op_appends,
        b"g": lambda u: u._op_get(_integer(u.line())),
        b"h": Unpickler._op_get_uint8,
        b"i": Unpickler._op_inst,
        b"j": lambda u: u._op_get(u.unpack(_UINT32)),
        b"l": lambda u: u.push(u.pop_mark()),
        b"]": _constant(list),
        b"o": Unpickler._op_obj,
        b"p": lambda u: u._op_put(_integer(u.line())),
        b"q": Unpickler._op_put_uint8,
        b"r": lambda u: u._op_put(u.unpack(_UINT32)),
        b"s": Unpickler._op_setitem,
        b"t": lambda u: u.push(tuple(u.pop_mark())),
        b")": _constant(tuple),
        b"u": Unpickler._op_setitems,
        b"G": _number(_DOUBLE),
        b"\x80": Unpickler._op_protocol,
        b"\x81": Unpickler._op_reduce,  # NEWOBJ: for the reader's own table the same as REDUCE
        b"\x85": Unpickler._op_tuple1,
        b"\x86": lambda u: u._op_tuple(2),
        b"\x87": lambda u: u._op_tuple(3),
        b"\x88": _constant(lambda: True),
        b"\x89": _constant(lambda: False),
        b"\x8a": Unpickler._op_long1,
        b"\x8b": Unpickler._op_long4,
        b"B": _raw(_UINT32),
        b"C": _raw(_UINT8),
        b"\x8c": _text(_UINT8),
        b"\x8d": _text(_UINT64),
        b"\x8e": _raw(_UINT64),
        b"\x8f": _constant(set),
        b"\x90": Unpickler._op_additems,
        b"\x91": lambda u: u.push(frozenset(hashable(value) for value in u.pop_mark())),
        b"\x92": Unpickler._op_newobj_ex,
        b"\x93": Unpickler._op_stack_global,
        b"\x94": lambda u: u._op_put(len(u._memo)),
        b"\x95": Unpickler._op_frame,
        b"\x96": _raw(_UINT64),
    }
    handlers: list[Callable[[Unpickler], None]] = [Unpickler._op_refused] * 256
    for opcode, handler in table.items():
        handlers[opcode[0]] = handler
    return handlers


_HANDLERS = _handlers()
