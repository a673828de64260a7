//! atelico-benches
