//! Fragments to datagrams, within limits of time and memory.
