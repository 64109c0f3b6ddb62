"""Every policy on every trace and pool, replayed: `make results` runs what is missing and writes docs/results.md."""
