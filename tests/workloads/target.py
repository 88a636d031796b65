"""An interpreter of a language of eight signs, in RPython: `program TEXT` runs TEXT.

A cell of the tape is a number from 0 to 255; the tape has no end on either side.
"""
import os


class Tape(object):
    def __init__(self):
        self.left = []
        self.right = []
        self.cell = 0

    def forward(self):
        self.left.append(self.cell)
        self.cell = self.right.pop() if self.right else 0

    def backward(self):
        self.right.append(self.cell)
        self.cell = self.left.pop() if self.left else 0


def loops(text):
    """Where each bracket's other one is, or None when one is alone."""
    others = {}
    begun = []
    for at in range(len(text)):
        if text[at] == '[':
            begun.append(at)
        elif text[at] == ']':
            if not begun:
                return None
            start = begun.pop()
            others[start] = at
            others[at] = start
    if begun:
        return None
    return others


def run(text, others):
    tape = Tape()
    at = 0
    while at < len(text):
        sign = text[at]
        if sign == '>':
            tape.forward()
        elif sign == '<':
            tape.backward()
        elif sign == '+':
            tape.cell = (tape.cell + 1) & 255
        elif sign == '-':
            tape.cell = (tape.cell - 1) & 255
        elif sign == '.':
            os.write(1, chr(tape.cell))
        elif sign == ',':
            read = os.read(0, 1)
            tape.cell = ord(read[0]) if read else 0
        elif sign == '[' and tape.cell == 0:
            at = others[at]
        elif sign == ']' and tape.cell != 0:
            at = others[at]
        at += 1


def entry_point(argv):
    if len(argv) != 2:
        os.write(2, "usage: program TEXT\n")
        return 2
    others = loops(argv[1])
    if others is None:
        os.write(2, "a bracket is alone\n")
        return 1
    run(argv[1], others)
    return 0


def target(*args):
    return entry_point, None
