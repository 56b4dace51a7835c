//! The ground truth of a synthetic Internet, and the links and responders that act it out.
