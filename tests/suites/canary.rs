//! Bad versions: they never serve anybody, and what was there before goes on as if nothing had been asked.
