"""Benchmarks against the usual ways and the usual tools, in a lab made for them: what `irlstack bench` does.

Everything is counted at the far end of a veth pair, or in the file that was written. Rounds are interleaved, so that
whatever slows the machine down for a while slows every contender down; ratios are taken inside a round.
"""
