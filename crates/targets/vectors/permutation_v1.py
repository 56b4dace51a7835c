"""The permutation of docs/permutation.md, version 1, written from its text and not from the Rust code.

    python3 crates/targets/vectors/permutation_v1.py > crates/targets/vectors/permutation-v1.json
"""

import json

M64 = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15
C1 = 0xBF58476D1CE4E5B9
C2 = 0x94D049BB133111EB


def mix(z: int) -> int:
    z = (z ^ (z >> 30)) * C1 & M64
    z = (z ^ (z >> 27)) * C2 & M64
    return z ^ (z >> 31)


def keys(size: int, seed: int) -> list[int]:
    state = mix((seed + GOLDEN) & M64)
    state = mix(((state ^ (size & M64)) + GOLDEN) & M64)
    state = mix(((state ^ (size >> 64)) + GOLDEN) & M64)
    return [mix((state + GOLDEN * i) & M64) for i in range(1, 25)]


def scramble(part: int, key: int) -> int:
    product = (part ^ key) * C1 & M64
    return (product ^ (product >> 32)) * C2 & M64


class Permutation:
    def __init__(self, size: int, seed: int):
        bits = (size - 1).bit_length()
        self.size = size
        self.wide = bits > 64
        self.k = max(1, (bits + 1) // 2)
        self.highs = ((size - 1) >> self.k) + 1
        self.keys = keys(size, seed)[: 24 if self.k < 6 else 6 if self.k < 12 else 4]

    def add(self, low: int, key: int) -> int:
        if not self.wide:
            return scramble(low, key) * self.highs >> 64
        return (mix(low ^ key) << 64 | mix(low ^ key ^ GOLDEN)) * self.highs >> 128

    def flip(self, high: int, key: int) -> int:
        return (mix(high ^ key) if self.wide else scramble(high, key)) >> (64 - self.k)

    def index(self, position: int) -> int:
        value = position
        while True:
            high, low = value >> self.k, value & ((1 << self.k) - 1)
            for i in range(0, len(self.keys), 2):
                high = (high + self.add(low, self.keys[i])) % self.highs
                low ^= self.flip(high, self.keys[i + 1])
            value = high << self.k | low
            if value < self.size:
                return value


def write(order, sizes: list[int]) -> None:
    """Prints the vectors of an order, a class made of size and seed: of each size and three seeds eight positions."""
    vectors = []
    for size in sizes:
        for seed in (0, 42, M64):
            of_size = order(size, seed)
            positions = sorted({p for p in (0, 1, 2, 3, size // 3, size // 2, size - 2, size - 1) if 0 <= p < size})
            pairs = [[str(p), str(of_size.index(p))] for p in positions]
            vectors.append({"size": str(size), "seed": str(seed), "position_index": pairs})
    lines = ",\n".join("    " + json.dumps(vector) for vector in vectors)
    print('{\n  "version": 1,\n  "vectors": [\n' + lines + "\n  ]\n}")


def main() -> None:
    sizes = [1, 2, 3, 7, 10, 255, 256, 257, 1000, 1024, 1025, 4096, 65537, 2**22 - 1, 2**22, 2**22 + 1, 2**24, 3702258432, 2**32]
    sizes += [2**32 + 1, 1110677529600, 2**63 + 5, 2**64 - 59, 2**64 - 1, 2**64]
    sizes += [2**64 + 1, 2**65, 2**96, 3 * 2**126 + 1, 2**128 - 1]
    write(Permutation, sizes)


if __name__ == "__main__":
    main()
