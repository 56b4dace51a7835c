"""The spread order of docs/permutation.md, written from that page alone; makes its test vectors.

    python3 crates/targets/vectors/spread_v1.py > crates/targets/vectors/spread-v1.json

Small sizes are ranked by sorting all points, large ones by counting over a Zeckendorf sum, so that neither shares an
idea with the crate's floor sums.
"""

from bisect import bisect_left

from permutation_v1 import GOLDEN, M64, mix, write


class Spread:
    def __init__(self, size: int, seed: int):
        step, circle = 0, 1
        while circle < size:
            step, circle = circle, circle + step
        self.size, self.step, self.circle = size, step, circle
        state = mix((seed + GOLDEN) & M64)
        k1, k2, k3 = (mix((state + GOLDEN * i) & M64) for i in (1, 2, 3))
        self.turn = (k1 << 64 | k2) * size >> 128
        self.mirrored = k3 >> 63 == 1
        self.sorted = sorted(p * step % circle for p in range(size)) if size <= 1 << 17 else None

    def rank(self, position: int) -> int:
        point = position * self.step % self.circle
        if self.sorted is not None:
            return bisect_left(self.sorted, point)
        return self.below(0, self.size, point)

    def below(self, first: int, count: int, point: int) -> int:
        """How many of the positions first .. first + count have a lower point: block by block of Fibonacci lengths."""
        total = 0
        while count:
            before, length = 1, 1  # F(k - 1), F(k)
            while length + before <= count:
                before, length = length, length + before
            total += self.block(first, before, length, point)
            first, count = first + length, count - length
        return total

    def block(self, first: int, before: int, length: int, point: int) -> int:
        """The same for a block of F(k) positions: its point j lies within a gap of an even spacing of F(k) points."""
        start = first * self.step % self.circle
        # step / circle = before / length + error / (length * circle): the points of the block in the order of
        # j * before mod length go once around the circle, each off its place by j * error / length of the circle's.
        error = self.step * length - before * self.circle
        inverse = pow(before, -1, length) if length > 1 else 0

        def at(slot: int) -> int:
            """The point of the slot-th place around, unwrapped, from the block's start, times length."""
            turns, slot_in = divmod(slot, length)
            j = slot_in * inverse % length
            return turns * length * self.circle + slot_in * self.circle + j * error

        def points_under(limit: int) -> int:
            """Slots whose unwrapped point is under limit (times length), counted from a slot far below."""
            slot = limit // self.circle
            while at(slot) >= limit:
                slot -= 1
            while at(slot + 1) < limit:
                slot += 1
            return slot + 1

        # Unwrapped from the start, the arc [0, point) is [circle - start, circle - start + point).
        low = (self.circle - start) * length
        return points_under(low + point * length) - points_under(low)

    def index(self, position: int) -> int:
        rank = self.rank(position)
        return (self.turn + (self.size - rank if self.mirrored else rank)) % self.size


def main() -> None:
    sizes = [1, 2, 3, 4, 5, 7, 8, 10, 255, 256, 257, 1000, 1024, 4096, 65537, 100_000]
    sizes += [2**22 + 1, 2**24, 3702258432, 2**32, 2**32 + 1, 1110677529600, 7540113804746346429, 2**63 - 25, 2**63]
    write(Spread, sizes)


if __name__ == "__main__":
    main()
