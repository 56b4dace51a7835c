//! Prefix sets, the permutation, plans.
