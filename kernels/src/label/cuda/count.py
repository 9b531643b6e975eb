"""Counts the instructions in the longest loop of the kernels of ROMix: `nvdisasm -c label.cubin | count.py sm_90`."""

import collections
import re
import sys

for name, body in re.findall(r"\.text\.(\w+):\n(.*?)(?=\n\s*\.section|\Z)", sys.stdin.read(), re.S):
    if not name.startswith(("mix", "fill")):
        continue
    labels, instructions, loop = {}, [], []
    for line in body.split("\n"):
        if label := re.match(r"\.(L_x_\d+):", line):
            labels[label.group(1)] = len(instructions)
        if instruction := re.search(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\d+ +)?(.*?);", line):
            instructions.append(instruction.group(1))
    for i, text in enumerate(instructions):
        target = re.search(r"BRA.*\(\.(L_x_\d+)\)", text)
        if target and labels.get(target.group(1), len(instructions)) <= i:
            loop = max(loop, instructions[labels[target.group(1)] : i + 1], key=len)
    kinds = collections.Counter(text.split()[0].split(".")[0] for text in loop)
    total = {
        "logic": kinds["LOP3"],
        "add": sum(kinds[kind] for kind in ("IMAD", "IADD", "IADD3", "VIADD", "MOV")),
        "shift": kinds["SHF"],
        "permute": kinds["PRMT"],
    }
    print(sys.argv[1], name, len(loop), *total.values())
