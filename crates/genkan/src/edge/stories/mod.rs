//! The whole data path, over sockets: an edge with its threads before fake hosts that behave as they are told.

mod bound;
mod elsewhere;
mod elsewhere_guard;
mod encrypted;
mod floods;
mod framing;
mod hosts;
mod linked;
mod linked_errors;
mod neighbours;
mod network;
mod requests;
mod streams;
mod unkind;
