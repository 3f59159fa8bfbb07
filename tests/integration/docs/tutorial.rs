//! `docs/tutorial.md` is true: its commands run, in order, on the files that it shows, and print what it says.
