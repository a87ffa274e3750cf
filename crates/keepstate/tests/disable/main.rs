//! `keepstate disable` in namespaces of its own: with real rules, real traffic, and without the right to look.
mod audit;
mod ladder;
mod place;
