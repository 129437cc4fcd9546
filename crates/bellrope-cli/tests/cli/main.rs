//! The real program, as its users run it: every command is a process, every server has a private socket.

mod acp;
mod bench;
mod chat;
mod config;
mod conversation;
mod hostile;
mod ingress;
mod operator;
mod provider;
mod real_model;
mod serve;
mod service_manager;
mod support;
mod terminal;
