//! The state of rate limits: bounded, sharded, over all workers; survives reload.
