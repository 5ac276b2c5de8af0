//! The three views of a path: as sent, normal (forwarded), folded (what some router might take it for).
