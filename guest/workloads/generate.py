"""The programs' input, generated from a seed: the same bytes on every machine."""

from __future__ import annotations

_MASK = (1 << 64) - 1


class Generator:
    """xorshift64*, the same as ``seed``, ``next64`` and ``below`` in ``common.h``."""

    def __init__(self, seed: int) -> None:
        self._state = seed * 0x9E3779B97F4A7C15 & _MASK or 1

    def next64(self) -> int:
        """Return the next 64 random bits."""
        state = self._state
        state ^= state >> 12
        state ^= state << 25 & _MASK
        state ^= state >> 27
        self._state = state
        return state * 0x2545F4914F6CDD1D & _MASK

    def below(self, bound: int) -> int:
        """Return a number from 0 to ``bound`` - 1."""
        return (self.next64() >> 32) * bound >> 32


# -- a C program, for cc1 -------------------------------------------------------------------------

_BINARY = ("+", "-", "*", "&", "|", "^")
_COMPARE = ("<", ">", "==", "!=", "<=", ">=")


def c_source(functions: int, declarations: int, seed: int = 1) -> bytes:
    """Return a preprocessed C program of ``functions`` functions and a ``main`` that calls them.

    It begins with ``declarations`` structures, as from headers, each with an enumeration, a type
    name, prototypes and an inline function.  The functions use structures, arrays, loops, switches
    and each other.  Arithmetic is unsigned, so nothing is undefined, and the program prints the
    same wherever it is compiled.
    """
    headers = "".join(_declaration(number) for number in range(declarations))
    program = _Program(Generator(seed))
    text = "".join(program.function(number) for number in range(functions))
    calls = "".join(
        f"    total = total * 31 + f{number}(&items[{number % 16}], {number}ul);\n"
        for number in range(functions)
    )
    return (
        '# 1 "generated.c"\n'
        f"{headers}"
        "struct item { unsigned long key, weight; unsigned table[16]; struct item *next; };\n"
        "int printf(const char *, ...);\n"
        "static struct item items[16];\n"
        f"{text}"
        "int main(void)\n{\n"
        "    unsigned long total = 0;\n"
        "    for (int i = 0; i < 16; i++) {\n"
        "        items[i].key = i * 2654435761ul;\n"
        "        items[i].next = &items[(i + 5) % 16];\n"
        "    }\n"
        f"{calls}"
        '    printf("%lx\\n", total);\n'
        "    return 0;\n}\n"
    ).encode()


def _declaration(number: int) -> str:
    thing, before = f"thing{number}", f"struct thing{max(number - 1, 0)} *"
    return (
        f'# {number * 9 + 1} "thing{number}.h" 1\n'
        f"enum {thing}_kind {{ {thing}_none, {thing}_some = {number + 1}, {thing}_all }};\n"
        f"struct {thing} {{ enum {thing}_kind kind; {before}previous; unsigned long size; }};\n"
        f"typedef struct {thing} {thing}_t;\n"
        f"extern {thing}_t *{thing}_make(enum {thing}_kind kind, {before}previous);\n"
        f"extern void {thing}_drop({thing}_t *what) __attribute__((nonnull));\n"
        f"static inline unsigned long {thing}_size(const {thing}_t *what)\n"
        f"{{ return what->kind == {thing}_none ? 0 : what->size + {number}; }}\n"
    )


class _Program:
    """Writes one function after the other."""

    def __init__(self, random: Generator) -> None:
        self._random = random

    def function(self, number: int) -> str:
        """Return the text of function ``number``, which may call those before it."""
        body = "".join(self._statement(number) for _ in range(5 + self._random.below(6)))
        return (
            f"unsigned long f{number}(struct item *at, unsigned long n)\n{{\n"
            "    unsigned long a = n + 1, b = at->key, c = at->next->weight;\n"
            f"{body}"
            "    at->weight ^= a + b;\n"
            "    return a ^ b ^ c;\n}\n"
        )

    def _one_of(self, *choices: str) -> str:
        return choices[self._random.below(len(choices))]

    def _name(self) -> str:
        return self._one_of("a", "b", "c")

    def _value(self, depth: int) -> str:
        if depth == 0:
            return self._one_of(
                *("a", "b", "c", "n", "at->key", "at->next->key", "at->table[a % 16]"),
                f"{self._random.below(1000)}ul",
            )
        left, right = self._value(depth - 1), self._value(depth - 1)
        kind = self._random.below(4)
        if kind == 0:
            shift = 1 + self._random.below(31)
            return f"(({left}) >> {shift} ^ ({right}) << {shift})"
        if kind == 1:
            cast = self._one_of("unsigned", "unsigned short", "unsigned char")
            return f"(({cast})({left}) % {2 + self._random.below(97)} + ({right}))"
        return f"({left} {self._one_of(*_BINARY)} {right})"

    def _condition(self) -> str:
        return f"{self._value(1)} {self._one_of(*_COMPARE)} {self._value(1)}"

    def _statement(self, number: int) -> str:
        name, other = self._name(), self._name()
        kind = self._random.below(6)
        if kind == 0:
            return (
                f"    for (unsigned i = 0; i < {2 + self._random.below(15)}; i++) {{\n"
                f"        at->table[i] += {self._value(1)};\n"
                f"        {name} += at->table[i] ^ {self._value(1)};\n    }}\n"
            )
        if kind == 1:
            cases = "".join(
                f"    case {case}: {self._name()} += {self._value(2)}; break;\n"
                for case in range(3 + self._random.below(6))
            )
            return f"    switch ({name} % 8) {{\n{cases}    default: {other} ^= {name};\n    }}\n"
        if kind == 2:
            return (
                f"    if ({self._condition()})\n        {name} = {self._value(3)};\n"
                f"    else\n        {other} -= {self._value(2)};\n"
            )
        if kind == 3 and number:
            callee = f"f{self._random.below(number)}"
            # A call divides the argument by four, which bounds the run time.
            return f"    if (n > 1 && n < 64)\n        {name} += {callee}(at->next, n / 4);\n"
        if kind == 4:
            return (
                f"    while ({name} > {1 + self._random.below(50)}) {{\n"
                f"        {name} >>= {1 + self._random.below(5)};\n"
                f"        at->weight += {self._value(1)};\n    }}\n"
            )
        return f"    {name} = {self._value(3)};\n"


# -- statements, for sqlite3 ----------------------------------------------------------------------


def sql(rows: int) -> bytes:
    """Return SQL for two tables of ``rows`` and ``rows`` / 10 rows.

    It makes two indexes, joins, updates, deletes and vacuums.  It prints the result of every query,
    which depends only on ``rows``.
    """
    customers = rows // 10
    return f"""\
create table customer(id integer primary key, name text, region int);
create table purchase(id integer primary key, customer int, amount int, note text);
begin;
with recursive n(i) as (select 1 union all select i + 1 from n where i < {customers})
insert into customer select i, 'customer ' || (i * 7919 % 1000003), i * 31 % 17 from n;
with recursive n(i) as (select 1 union all select i + 1 from n where i < {rows})
insert into purchase select i, 1 + i * 7919 % {customers}, i * 104729 % 10007,
    'note ' || (i * 15485863 % 1000003) || ' on purchase ' || i from n;
commit;
create index by_customer on purchase(customer, amount);
create index by_note on purchase(note);
select region, count(*), sum(amount), max(note) from customer join purchase
    on purchase.customer = customer.id group by region order by region;
select count(*) from purchase where note between 'note 3' and 'note 5';
update purchase set amount = amount + 1 where customer % 3 = 0;
delete from purchase where amount % 5 = 0;
vacuum;
select count(*), sum(amount), sum(length(note)) from purchase;
select name, sum(amount) as spent from customer join purchase
    on purchase.customer = customer.id group by customer.id order by spent desc, name limit 5;
""".encode()


# -- text, for xz ---------------------------------------------------------------------------------


def text(size: int, seed: int = 1) -> bytes:
    """Return ``size`` bytes of text.  Some words are common, so it compresses like a log."""
    random = Generator(seed)
    letters = "etaoinshrdlucmfw"
    words = []
    for _ in range(4096):
        length = 2 + random.below(9)
        words.append("".join(letters[random.below(len(letters))] for _ in range(length)))
    parts: list[str] = []
    length = 0
    while length < size:
        # The least of three draws prefers low numbers, which are the common words.
        index = min(random.below(4096), random.below(4096), random.below(4096))
        word = words[index] + ("\n" if random.below(12) == 0 else " ")
        parts.append(word)
        length += len(word)
    return "".join(parts)[:size].encode()
