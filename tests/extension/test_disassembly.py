"""Machine code of the extension: each instruction set is used where it belongs, and nowhere else.

Kernels are found by the symbol of the function that they are inlined into,
`Simd::vectorize::trampoline`, so that the library must not have been stripped. What the code
computes is not looked at.
"""

import platform
import re
import shutil
import subprocess
import sys
from collections import Counter
from typing import NamedTuple

import pytest

from kldiv import _kldiv

pytestmark = [
    pytest.mark.skipif(
        sys.platform != "linux" or platform.machine() != "x86_64",
        reason="reads x86-64 code in ELF files",
    ),
    pytest.mark.skipif(shutil.which("objdump") is None, reason="needs objdump, of binutils"),
]

# The widest registers of each instruction set.
REGISTERS = {"avx512": "zmm", "avx2": "ymm"}

# The only functions outside of the kernels that use newer instructions than every x86-64 has:
# each is called only where the CPU was found to have them.
DETECTED = re.compile(
    r"half::binary16::arch::x86::\w+_f16c|compiler_builtins::math::libm_math::arch::x86::fma::"
)

# VEX and EVEX have mnemonics of their own; then SSE3 to SSE4.2, POPCNT and BMI.
NEWER = re.compile(
    r"v(?!er[rw]\b)"
    r"|round[sp][sd]|pblend|blendvp|dpp[sd]|insertps|pinsr[bdq]|extractps|pextr[bdq]|pmov[sz]x|pmul(ld|dq)"
    r"|pm(ax|in)([su]d|sb|uw)|pcmp([ei]str|eqq|gtq)|packusdw|ptest|pshufb|palignr|pabs|psign|ph(add|sub)|pmaddub"
    r"|pmulhrsw|h(add|sub)p|addsubp|mov(d|sh|sl)dup|lddqu|crc32|popcnt|lzcnt|movbe|andn\b|bzhi|bextr|bls|pdep|pext\b"
    r"|mulx|rorx|s[ah]rx|shlx"
)
FUSED = re.compile(r"vfn?m(?:add|sub)\d{3}(?P<form>[ps])[sd]\b.*%(?P<register>[xyz]mm)")


class Function(NamedTuple):
    name: str
    instructions: dict[int, str]

    def loops(self):
        """The instructions between the target of every jump backwards and the jump."""
        for address, instruction in self.instructions.items():
            jump = re.match(r"j\w+\s+([0-9a-f]+)\b", instruction)
            if jump and (target := int(jump[1], 16)) <= address and target in self.instructions:
                yield [self.instructions[at] for at in self.instructions if target <= at <= address]

    def uses(self, pattern):
        return any(pattern.match(instruction) for instruction in self.instructions.values())


@pytest.fixture(scope="module")
def functions():
    command = ["objdump", "--disassemble", "--demangle", "--wide", "--no-show-raw-insn"]
    listing = subprocess.run(
        [*command, _kldiv.__file__], capture_output=True, text=True, check=True
    )
    found = []
    for line in listing.stdout.splitlines():
        if start := re.fullmatch(r"[0-9a-f]+ <(.*)>:", line):
            found.append(Function(start[1], {}))
        elif instruction := re.match(r" *([0-9a-f]+):\t(.*)", line):
            found[-1].instructions[int(instruction[1], 16)] = instruction[2]
    named = sum("kldiv::" in function.name for function in found)
    assert named > 100, f"{_kldiv.__file__} has no symbols; build it with `make`, which keeps them"
    return found


def kernels(functions, isa):
    trampoline = re.compile(rf".*\bsimd::{isa}::\w+ as .*::(vectorize|apart)::trampoline")
    return [function for function in functions if trampoline.match(function.name)]


def fused_operations(functions, isa):
    """Of each kernel."""
    return [
        [
            match
            for instruction in function.instructions.values()
            if (match := FUSED.match(instruction))
        ]
        for function in kernels(functions, isa)
    ]


@pytest.mark.costly
@pytest.mark.parametrize("isa", REGISTERS)
def test_loops_multiply_and_add_whole_vectors_at_once(functions, isa):
    """Most kernels have exponentials in their loop; some look for the largest class, or count."""
    found = kernels(functions, isa)
    # Numbers only in assertions here: pytest would print the code.
    count = len(found)
    assert count >= 20
    fused = [
        any(
            (match := FUSED.match(instruction)) and match["register"] == REGISTERS[isa]
            for loop in function.loops()
            for instruction in loop
        )
        for function in found
    ]
    share = sum(fused) / count
    assert share > 0.7


@pytest.mark.costly
@pytest.mark.parametrize("isa", REGISTERS)
def test_fused_operations_are_on_whole_vectors(functions, isa):
    """A product left to narrower registers, or to single numbers, would be a vector taken apart."""
    counts = [
        Counter(match["form"] for match in fused) for fused in fused_operations(functions, isa)
    ]
    packed = sum(count["p"] for count in counts)
    assert packed > 1000
    # Single numbers are found once a row or block, and are few; a vector taken apart would be more.
    assert max(count["s"] for count in counts) < 8
    registers = {
        match["register"]
        for fused in fused_operations(functions, isa)
        for match in fused
        if match["form"] == "p"
    }
    assert registers == {REGISTERS[isa]}


@pytest.mark.costly
def test_portable_kernels_are_vectors_too(functions):
    """In the instructions that every x86-64 has: code that must not have any of AVX is found."""
    packed = re.compile(r"(mul|add)p[sd]\b.*%xmm")
    looping = [
        function
        for function in functions
        if "kldiv::" in function.name
        and any(packed.match(instruction) for loop in function.loops() for instruction in loop)
    ]
    count = len(looping)
    assert count >= 20
    assert not [
        function.name for function in looping if function.uses(re.compile(r"v(add|mul)p[sd]"))
    ]


def test_nothing_else_needs_more_than_the_first_x86_64(functions):
    """A library built for the CPU of its builder would end with SIGILL on an older one."""
    allowed = {id(function) for isa in REGISTERS for function in kernels(functions, isa)}
    assert not {
        f"{function.name}: {instruction}"
        for function in functions
        if id(function) not in allowed and not DETECTED.search(function.name)
        for instruction in function.instructions.values()
        if NEWER.match(instruction)
    }


def test_no_operation_on_vectors_is_a_call(functions):
    """One that is not inlined into its kernel takes vectors from memory: many times slower."""
    operation = re.compile(
        r"core::core_arch::x86::(?!xsave|cpuid)"  # an intrinsic called by code without its feature
        r"|simd::(vector::Lanes|vector::Total|exp::|ln::)"
        r"|simd::(avx512|avx2)::"
        r"(?!Avx512::detect|Avx2::detect|\w+ as .*::(vectorize|apart)::trampoline)"
    )
    assert not {function.name for function in functions if operation.search(function.name)}
