//! The real program, as its users run it: every command is a process, every server has a private socket.

mod acp;
mod acp_package;
mod acp_sessions;
mod api_end;
mod api_formats;
mod api_odd;
mod api_pass;
mod api_port;
mod api_port_memory;
mod bench;
mod books;
mod breakers;
mod chat;
mod config;
mod confined;
mod conversation;
mod documents;
mod editor;
#[cfg(feature = "fleet")]
mod fleet;
#[cfg(feature = "fleet")]
mod fleet_port;
mod foreign;
mod generate;
mod hostile;
mod local_models;
mod manual;
mod odd_types;
mod operator;
#[cfg(feature = "otlp")]
mod otlp;
mod plugins;
mod printed;
mod provider;
mod real_model;
mod real_tools;
mod reload;
mod resumable;
mod scarce;
mod scripted;
mod serve;
mod service_manager;
mod spawned;
mod stored;
mod strangers;
mod stress;
mod support;
mod terminal;
mod twins;
mod typed;
mod unnamed;
#[cfg(not(feature = "fleet"))]
mod without_fleet;
