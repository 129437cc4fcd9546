//! What the agent says of itself.

use agent_client_protocol_schema::{
    ProtocolVersion,
    v1::{
        AgentCapabilities, AuthMethod, AuthMethodTerminal, Implementation, InitializeResponse, PromptCapabilities,
        SessionCapabilities, SessionCloseCapabilities, SessionDeleteCapabilities, SessionListCapabilities,
        SessionResumeCapabilities,
    },
};

/// What the agent can do. `keeps`: whether sessions are kept on disk. `terminal`: whether the editor lets its user set keys in a terminal.
pub(super) fn introduction(keeps: bool, terminal: bool) -> InitializeResponse {
    let prompts = PromptCapabilities::new().image(true).embedded_context(true);
    let mut sessions = SessionCapabilities::new().close(SessionCloseCapabilities::new());
    if keeps {
        sessions = sessions
            .list(SessionListCapabilities::new())
            .delete(SessionDeleteCapabilities::new())
            .resume(SessionResumeCapabilities::new());
    }
    let capabilities =
        AgentCapabilities::new().prompt_capabilities(prompts).session_capabilities(sessions).load_session(keeps);
    let mut methods = Vec::new();
    if terminal {
        let method = AuthMethodTerminal::new("setup", "Set the key of a provider").args(vec!["--setup".to_owned()]);
        methods
            .push(AuthMethod::Terminal(method.description("Asks for a provider and its key, and keeps it".to_owned())));
    }
    let version = env!("CARGO_PKG_VERSION");
    InitializeResponse::new(ProtocolVersion::V1)
        .agent_capabilities(capabilities)
        .auth_methods(methods)
        .agent_info(Implementation::new("bellrope", version).title("Bellrope".to_owned()))
}
