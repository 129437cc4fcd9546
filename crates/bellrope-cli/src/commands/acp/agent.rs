//! What is answered to which request, and the turn of a prompt.
//!
//! Lines are dealt with one after the other, so whatever takes time is a task of its own.

use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use agent_client_protocol_schema::v1::{
    CancelNotification, CancelRequestNotification, ClientCapabilities, CloseSessionRequest, CloseSessionResponse,
    ContentBlock, DeleteSessionRequest, Error, ErrorCode, InitializeRequest, LoadSessionRequest, LoadSessionResponse,
    NewSessionRequest, NewSessionResponse, PromptRequest, PromptResponse, RequestId, ResumeSessionRequest,
    ResumeSessionResponse, SessionConfigOptionValue, SessionId, SetSessionConfigOptionRequest,
    SetSessionConfigOptionResponse, StopReason,
};
use bellrope::{AsyncClient, client::ConnectionState};
use bellrope_gateway::{ChatRequest, Content, ModelList};
use serde::Serialize;
use serde_json::Value;
use tokio::{
    io::{AsyncBufRead, AsyncWrite},
    sync::Notify,
    task::{JoinError, JoinSet},
};

use super::{
    files::{self, Files},
    introduction::introduction,
    models,
    passing::pass_on,
    prompt,
    questions::Questions,
    rpc::{self, Incoming},
    sessions::{Sessions, Unready},
    store::{self, Header, Store},
    wire::{self, Editor, Flow, Input, MAX_LINE, Taken},
};
use crate::{commands::chat::Conversation, socket, spawn::ServerArg};

/// The target of its log lines, which filters name: it stays when the file moves.
const TARGET: &str = "bellrope::acp::agent";

/// How long the models may take to be listed; without them a session has no choice of them.
const MODELS_TIMEOUT: Duration = Duration::from_secs(6);

/// Requests that may be at work at once: beyond it, reading rests until one has ended.
const MAX_TASKS: usize = 256;

/// The agent of one editor.
#[derive(Debug)]
pub(super) struct Agent {
    server: ServerArg,
    /// How questions are asked where a session does not say otherwise.
    pub(super) request: ChatRequest,
    flow: Arc<Flow>,
    sessions: Mutex<Sessions>,
    pub(super) store: Store,
    pub(super) questions: Questions,
    /// Whether the editor reads files for the agent.
    reads_files: AtomicBool,
    /// Prompts at work, by the request, with what tells them that it is withdrawn.
    withdrawals: Mutex<HashMap<RequestId, Arc<Notify>>>,
    /// Connected with the first need of it; then it connects anew by itself.
    client: tokio::sync::Mutex<Option<AsyncClient>>,
}

/// Answers an editor until it is gone.
pub(super) async fn serve(
    agent: Arc<Agent>,
    input: impl AsyncBufRead + Unpin,
    output: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    let flow = Arc::clone(&agent.flow);
    let mut input = Input::new(input, &flow);
    let (editor, outgoing) = Editor::new(&flow);
    let mut dispatcher = Dispatcher { agent, editor, tasks: JoinSet::new(), introduced: Introduced::No };
    let mut writing = std::pin::pin!(wire::write(output, outgoing, &flow));
    let reading = async {
        while let Some(line) = input.next().await? {
            match line {
                Taken::Line(line) => dispatcher.take(&line).await,
                Taken::TooLong(beginning) => dispatcher.refuse(&beginning).await?,
            }
        }
        flow.settled().await;
        io::Result::Ok(())
    };
    tokio::select! {
        outcome = &mut writing => return outcome,
        outcome = reading => outcome?,
    }
    // Turns end with the tasks; what is still to be said is written.
    drop(dispatcher);
    writing.await
}

/// How far the editor has introduced itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Introduced {
    No,
    /// It may do so once more, until it asks for something else.
    Just,
    Yes,
}

/// Deals with the lines of an editor, one after the other.
#[derive(Debug)]
struct Dispatcher {
    agent: Arc<Agent>,
    editor: Editor,
    tasks: JoinSet<()>,
    introduced: Introduced,
}

impl Dispatcher {
    async fn take(&mut self, line: &str) {
        while let Some(ended) = self.tasks.try_join_next() {
            ended_well(ended);
        }
        if self.tasks.len() >= MAX_TASKS
            && let Some(ended) = self.tasks.join_next().await
        {
            ended_well(ended);
        }
        match rpc::parse(line) {
            Incoming::Request { id, method, params } => {
                if let Err(error) = self.request(&id, &method, &params).await {
                    tracing::debug!(target: TARGET, %method, code = i32::from(error.code), "a request is refused");
                    self.editor.answer(&id, Err::<(), _>(error)).await;
                }
            }
            Incoming::Notification { method, params } => self.notification(&method, &params),
            Incoming::Response { id, answer } => {
                if !id.is_some_and(|id| self.agent.questions.answered(&id, answer)) {
                    tracing::debug!(target: TARGET, "a response to nothing is ignored");
                }
            }
            Incoming::Refused(error) => {
                tracing::debug!(target: TARGET, code = i32::from(error.code), "a line is no message");
                self.editor.answer(&RequestId::Null, Err::<(), _>(error)).await;
            }
        }
    }

    /// Answers a request whose line is too long, if its beginning has the id. Else nobody could tell the editor which
    /// request is lost, and it would wait for ever. A line that is no object asks for nothing.
    async fn refuse(&mut self, beginning: &str) -> io::Result<()> {
        let told = format!("a line of more than {MAX_LINE} bytes was ignored; attach less");
        let (id, error) = match rpc::id_in(beginning) {
            Some(id) => (id, Error::invalid_request().data(Value::from(told))),
            None if beginning.trim_start().starts_with('{') => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, told));
            }
            None => (RequestId::Null, Error::parse_error().data(Value::from(told))),
        };
        self.editor.answer(&id, Err::<(), _>(error)).await;
        Ok(())
    }

    /// Answers a request, now or in a task. `Err` is its answer, too.
    async fn request(&mut self, id: &RequestId, method: &str, params: &Value) -> Result<(), Error> {
        if method == "initialize" {
            let capabilities = self.initialize(params)?;
            self.agent.reads_files.store(capabilities.fs.read_text_file, Ordering::Relaxed);
            let introduction = introduction(self.agent.store.keeps(), capabilities.auth.terminal);
            self.editor.answer(id, Ok(introduction)).await;
            return Ok(());
        }
        if self.introduced == Introduced::No {
            let told = format!("ACP initialization must complete before `{method}` can be used");
            return Err(Error::invalid_request().data(Value::from(told)));
        }
        self.introduced = Introduced::Yes;
        let (agent, editor, id) = (Arc::clone(&self.agent), self.editor.clone(), id.clone());
        match method {
            "session/new" => {
                let request: NewSessionRequest = rpc::params(&without_servers(params))?;
                self.soon(id, async move { agent.open(request.cwd).await }).await;
            }
            "session/load" if agent.store.keeps() => {
                let request: LoadSessionRequest = rpc::params(&without_servers(params))?;
                self.soon(id, async move {
                    let options = agent.load(&request.session_id, request.cwd, Some(&editor)).await?;
                    Ok(LoadSessionResponse::new().config_options(options))
                })
                .await;
            }
            "session/resume" if agent.store.keeps() => {
                let request: ResumeSessionRequest = rpc::params(&without_servers(params))?;
                self.soon(id, async move {
                    let options = agent.load(&request.session_id, request.cwd, None).await?;
                    Ok(ResumeSessionResponse::new().config_options(options))
                })
                .await;
            }
            "session/list" if agent.store.keeps() => {
                let request = rpc::params(params)?;
                self.soon(id, async move { agent.list(request).await }).await;
            }
            "session/delete" if agent.store.keeps() => {
                let request: DeleteSessionRequest = rpc::params(params)?;
                self.soon(id, async move { agent.delete(&request.session_id).await }).await;
            }
            "session/set_config_option" => {
                let request = rpc::params(params)?;
                self.soon(id, async move { agent.set(request).await }).await;
            }
            "session/prompt" => {
                let turn = agent.prompt(rpc::params(params)?, id, editor)?;
                self.tasks.spawn(turn);
            }
            "session/close" => {
                let request: CloseSessionRequest = rpc::params(params)?;
                if !agent.sessions().close(&request.session_id.0) {
                    return Err(unready(Unready::Unknown, &request.session_id));
                }
                editor.answer(&id, Ok(CloseSessionResponse::new())).await;
            }
            _ => return Err(Error::method_not_found().data(Value::from(method))),
        }
        Ok(())
    }

    /// Answers in a task what takes a moment. The end of standard input waits for it.
    async fn soon<T: Serialize + Send>(
        &mut self,
        id: RequestId,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) {
        let (brief, editor) = (self.agent.flow.brief().await, self.editor.clone());
        self.tasks.spawn(async move {
            editor.answer(&id, work.await).await;
            drop(brief);
        });
    }

    /// Version 1 is all there is: whatever version the editor prefers, it is told so.
    fn initialize(&mut self, params: &Value) -> Result<ClientCapabilities, Error> {
        let Ok(request) = rpc::params::<InitializeRequest>(params) else {
            let told = "initialize.protocolVersion must be a valid ACP protocol version";
            return Err(Error::invalid_params().data(Value::from(told)));
        };
        if self.introduced == Introduced::Yes {
            let told = "ACP initialization cannot be repeated after any other request; reconnect to initialize again";
            return Err(Error::invalid_request().data(Value::from(told)));
        }
        self.introduced = Introduced::Just;
        Ok(request.client_capabilities)
    }

    /// Those that nobody knows are passed over.
    fn notification(&self, method: &str, params: &Value) {
        match method {
            "session/cancel" => {
                if let Ok(notice) = rpc::params::<CancelNotification>(params) {
                    self.agent.sessions().cancel(&notice.session_id.0);
                }
            }
            "$/cancel_request" => {
                if let Ok(notice) = rpc::params::<CancelRequestNotification>(params)
                    && let Some(withdrawn) = self.agent.withdrawals().get(&notice.request_id)
                {
                    withdrawn.notify_one();
                }
            }
            _ => tracing::debug!(target: TARGET, method, "a notification is ignored"),
        }
    }
}

/// The parameters of a new session without its servers of tools. None is ever asked, so that one of a kind which is not
/// known here is no reason to refuse the session.
fn without_servers(params: &Value) -> Value {
    let mut params = params.clone();
    if let Some(Value::Array(servers)) = params.get_mut("mcpServers")
        && !servers.is_empty()
    {
        tracing::debug!(target: TARGET, servers = servers.len(), "servers of tools are passed over");
        servers.clear();
    }
    params
}

/// A fault in a task is a fault of the program, not the end of one request.
fn ended_well(task: Result<(), JoinError>) {
    if let Err(error) = task
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}

impl Agent {
    pub(super) fn new(server: ServerArg, request: ChatRequest, store: Store, flow: Arc<Flow>) -> Self {
        Self {
            server,
            request,
            flow,
            sessions: Mutex::default(),
            store,
            questions: Questions::default(),
            reads_files: AtomicBool::new(false),
            withdrawals: Mutex::default(),
            client: tokio::sync::Mutex::new(None),
        }
    }

    /// The connection to the server, which is started if there is none.
    pub(super) async fn client(&self) -> anyhow::Result<AsyncClient> {
        let mut client = self.client.lock().await;
        if let Some(client) = &*client {
            return Ok(client.clone());
        }
        Ok(client.insert(self.server.connect().await?).clone())
    }

    /// The same after an error, if that is to be tried. Of those whose server is gone one starts the next.
    async fn next_client(&self, error: anyhow::Error) -> anyhow::Result<AsyncClient> {
        let mut client = self.client.lock().await;
        if let Some(client) = client.as_ref().filter(|client| client.state() == ConnectionState::Connected) {
            return if error.is::<socket::NoServer>() { Ok(client.clone()) } else { Err(error) };
        }
        Ok(client.insert(self.server.connect_after(error).await?).clone())
    }

    /// Opens a session, if there is a server to ask.
    async fn open(&self, cwd: PathBuf) -> Result<NewSessionResponse, Error> {
        let models = self.models().await.map_err(|error| failed(&error))?;
        let id = store::new_id().map_err(|error| failed(&error))?;
        let (header, conversation) = (Header::new(id.clone(), cwd), Conversation::new(self.request.clone()));
        self.sessions().open(header, conversation).map_err(|fault| unready(fault, &SessionId::new("")))?;
        let option = models::option(&models.models, &models::chosen(&self.request));
        Ok(NewSessionResponse::new(id).config_options(option.map(|option| vec![option])))
    }

    /// Changes the model of a session.
    async fn set(&self, request: SetSessionConfigOptionRequest) -> Result<SetSessionConfigOptionResponse, Error> {
        let SetSessionConfigOptionRequest { session_id, config_id, value, .. } = request;
        let choice = match value {
            SessionConfigOptionValue::ValueId { value } if *config_id.0 == *models::OPTION => value.0,
            _ => return Err(invalid(format!("there is no option {config_id}; known: {}", models::OPTION))),
        };
        let models = self.models().await.map_err(|error| failed(&error))?;
        let mut chosen = Ok(());
        let change = |conversation: &mut Conversation| {
            chosen = conversation.change(|request| models::choose(request, &choice, &self.request, &models.models));
        };
        self.sessions().change(&session_id.0, change).map_err(|fault| unready(fault, &session_id))?;
        chosen.map_err(invalid)?;
        let option = models::option(&models.models, &choice);
        Ok(SetSessionConfigOptionResponse::new(option.into_iter().collect()))
    }

    /// The models to choose from. None, if they take too long to be listed: a session works without.
    pub(super) async fn models(&self) -> anyhow::Result<ModelList> {
        match list(&self.client().await?).await {
            Err(error) => list(&self.next_client(error).await?).await,
            models => models,
        }
    }

    /// Begins a prompt. What is returned answers it.
    fn prompt(
        self: Arc<Self>,
        request: PromptRequest,
        request_id: RequestId,
        editor: Editor,
    ) -> Result<impl Future<Output = ()> + Send + 'static, Error> {
        let PromptRequest { session_id: id, prompt, .. } = request;
        // What cannot be sent is refused at once; what is linked to is read when the turn has begun.
        let links = self.reads_files.load(Ordering::Relaxed) && files::links(&prompt);
        let linked = if links { prompt.clone() } else { Vec::new() };
        let content = prompt::content(prompt, &Files::new()).map_err(invalid)?;
        let (mut conversation, cancelled) = self.sessions().begin(&id.0).map_err(|fault| unready(fault, &id))?;
        let withdrawn = Arc::new(Notify::new());
        self.withdrawals().insert(request_id.clone(), Arc::clone(&withdrawn));
        Ok(async move {
            let outcome = tokio::select! {
                biased;
                // The stream is dropped, and so cancelled at the server.
                _ = cancelled => Ok(StopReason::Cancelled),
                () = withdrawn.notified() => Ok(StopReason::Cancelled),
                outcome = async {
                    let content = match links {
                        true => self.with_files(&id, linked, &editor).await.unwrap_or(content),
                        false => content,
                    };
                    conversation.ask_in_parts(content);
                    self.turn(&id, &mut conversation, &editor).await
                } => outcome,
            };
            match outcome {
                // The protocol says of a refusal that its prompt is not part of the next.
                Err(_) | Ok(StopReason::Refusal) => conversation.take_back(),
                Ok(_) => conversation.settle(),
            }
            self.keep(&id, &conversation).await;
            self.sessions().end(&id.0, conversation);
            self.forget(&request_id, &withdrawn);
            editor.answer(&request_id, outcome.map(PromptResponse::new).map_err(|error| failed(&error))).await;
        })
    }

    /// What a prompt says, with the files that it links to.
    async fn with_files(&self, id: &SessionId, prompt: Vec<ContentBlock>, editor: &Editor) -> Option<Content> {
        let files = files::read(&self.questions, editor, id, &prompt).await;
        prompt::content(prompt, &files).ok()
    }

    /// Takes note that a prompt is answered. An editor that uses an id twice withdraws what it asked last.
    fn forget(&self, id: &RequestId, withdrawn: &Arc<Notify>) {
        let mut withdrawals = self.withdrawals();
        if withdrawals.get(id).is_some_and(|last| Arc::ptr_eq(last, withdrawn)) {
            withdrawals.remove(id);
        }
    }

    /// Asks, and passes the answer on.
    async fn turn(
        &self,
        id: &SessionId,
        conversation: &mut Conversation,
        editor: &Editor,
    ) -> anyhow::Result<StopReason> {
        match pass_on(&self.client().await?, id, conversation, editor).await {
            // There is another try only if nothing was sent.
            Err(error) => pass_on(&self.next_client(error).await?, id, conversation, editor).await,
            outcome => outcome,
        }
    }

    fn withdrawals(&self) -> MutexGuard<'_, HashMap<RequestId, Arc<Notify>>> {
        self.withdrawals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The models that a server knows. None, if they take too long to be listed.
async fn list(client: &AsyncClient) -> anyhow::Result<ModelList> {
    match client.call_within("ai.models", b"", MODELS_TIMEOUT).await {
        Ok(list) => Ok(serde_json::from_slice(&list)?),
        Err(error @ bellrope::CallError::Connect(_)) => Err(socket::explain_call(error)),
        Err(error) => {
            tracing::warn!(target: TARGET, %error, "the models cannot be listed");
            Ok(ModelList { version: 1, models: Vec::new(), faults: Vec::new() })
        }
    }
}

/// An error in the words that an editor shows.
pub(super) fn failed(error: &anyhow::Error) -> Error {
    Error::new(ErrorCode::InternalError.into(), bellrope_terminal::in_words(error))
}

pub(super) fn invalid(fault: String) -> Error {
    Error::new(ErrorCode::InvalidParams.into(), fault)
}

pub(super) fn unready(fault: Unready, id: &SessionId) -> Error {
    match fault {
        Unready::Unknown => Error::session_not_found(id.clone()),
        Unready::Busy => invalid("this session waits for an answer; cancel it first".to_owned()),
        Unready::Full => invalid("too many sessions wait for answers; close some".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;
    use tokio::io::{
        AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream, Lines, ReadHalf, WriteHalf,
    };

    use super::*;

    /// An editor on the other end, of an agent whose server does not exist.
    struct Far {
        agent: Arc<Agent>,
        input: Option<WriteHalf<DuplexStream>>,
        lines: Lines<BufReader<ReadHalf<DuplexStream>>>,
        serving: tokio::task::JoinHandle<io::Result<()>>,
    }

    impl Far {
        async fn start() -> Self {
            #[derive(Parser)]
            struct Nowhere {
                #[command(flatten)]
                server: ServerArg,
            }
            let server = Nowhere::parse_from(["test", "--no-spawn", "--socket", "/nonexistent/bellrope.sock"]).server;
            let agent = Arc::new(Agent::new(server, ChatRequest::default(), Store::none(), Arc::new(Flow::new())));
            let (near, far) = tokio::io::duplex(1024);
            let (input, output) = tokio::io::split(near);
            let serving = tokio::spawn(serve(Arc::clone(&agent), BufReader::new(input), output));
            let (output, input) = tokio::io::split(far);
            Self { agent, input: Some(input), lines: BufReader::new(output).lines(), serving }
        }

        /// One that has introduced itself.
        async fn introduced() -> Self {
            let mut far = Self::start().await;
            far.send(0, "initialize", json!({"protocolVersion": 1})).await;
            assert_eq!(far.next().await["result"]["protocolVersion"], 1);
            far
        }

        async fn write(&mut self, line: &str) {
            self.input.as_mut().unwrap().write_all(format!("{line}\n").as_bytes()).await.unwrap();
        }

        async fn send(&mut self, id: u64, method: &str, params: Value) {
            self.write(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string()).await;
        }

        async fn next(&mut self) -> Value {
            serde_json::from_str(&self.lines.next_line().await.unwrap().unwrap()).unwrap()
        }

        async fn refused(&mut self, id: u64, method: &str, params: Value) -> (i64, String) {
            self.send(id, method, params).await;
            let answer = self.next().await;
            assert_eq!(answer["id"], id, "{answer}");
            (answer["error"]["code"].as_i64().unwrap(), answer["error"].to_string())
        }

        async fn leave(mut self) {
            self.input.take().unwrap().shutdown().await.unwrap();
            self.serving.await.unwrap().unwrap();
        }
    }

    fn prompt(session: &str) -> Value {
        json!({"sessionId": session, "prompt": [{"type": "text", "text": "hi"}]})
    }

    #[tokio::test]
    async fn what_cannot_be_taken_in_is_refused_and_the_rest_goes_on() {
        let mut far = Far::introduced().await;
        let long = json!({"jsonrpc": "2.0", "id": 9, "method": "session/prompt", "z": "x".repeat(17 * 1024 * 1024)});
        far.write(&long.to_string()).await;
        let answer = far.next().await;
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(9), &json!(-32600)));
        let text = json!("x".repeat(17 * 1024 * 1024)).to_string();
        for (line, code) in [("{", -32700), (&text, -32700), ("[1]", -32600), ("17", -32600)] {
            far.write(line).await;
            let answer = far.next().await;
            assert_eq!((&answer["id"], &answer["error"]["code"]), (&Value::Null, &json!(code)));
        }
        assert_eq!(far.refused(1, "session/fly", json!({})).await.0, -32601);
        assert_eq!(far.refused(2, "session/prompt", json!({"prompt": 3})).await.0, -32602);
        assert_eq!(far.refused(3, "session/close", json!({"sessionId": "nobody"})).await.0, -32002);
        // Servers of tools are never asked, of whatever kind they are: what fails here is the connection.
        let servers = json!([{"type": "carrier-pigeon", "name": "p"}, {"type": "http", "name": 7}]);
        assert_eq!(far.refused(5, "session/new", json!({"cwd": "/", "mcpServers": servers})).await.0, -32603);
        assert_eq!(far.refused(6, "session/new", json!({"cwd": "/", "mcpServers": 7})).await.0, -32602);
        // A response to nothing and notifications that nobody knows are passed over.
        far.write(r#"{"jsonrpc":"2.0","id":99,"result":{}}"#).await;
        for method in ["session/fly", "session/cancel", "$/cancel_request"] {
            far.write(&json!({"jsonrpc": "2.0", "method": method}).to_string()).await;
        }
        assert_eq!(far.refused(4, "session/new", json!({"cwd": "/", "mcpServers": []})).await.0, -32603);
        far.leave().await;
    }

    #[tokio::test]
    async fn a_line_too_long_to_tell_whose_it_is_ends_the_connection() {
        let mut far = Far::introduced().await;
        let text = json!({"jsonrpc": "2.0", "method": "session/prompt", "z": "x".repeat(17 * 1024 * 1024)}).to_string();
        // The editor stops writing as soon as nobody reads.
        let _ = far.input.as_mut().unwrap().write_all(text.as_bytes()).await;
        let _ = far.input.as_mut().unwrap().write_all(b"\n").await;
        let error = far.serving.await.unwrap().unwrap_err();
        assert!(error.to_string().contains("was ignored"), "{error}");
    }

    #[tokio::test]
    async fn an_editor_introduces_itself_first_and_again_only_before_it_asks_for_something() {
        let mut far = Far::start().await;
        let (code, told) = far.refused(1, "session/fly", json!({})).await;
        assert_eq!(code, -32600);
        assert!(told.contains("ACP initialization must complete before `session/fly` can be used"), "{told}");
        assert_eq!(far.refused(2, "initialize", json!({"protocolVersion": "1"})).await.0, -32602);
        for version in [0, 1, 2] {
            far.send(3, "initialize", json!({"protocolVersion": version})).await;
            assert_eq!(far.next().await["result"]["protocolVersion"], 1);
        }
        assert_eq!(far.refused(4, "session/fly", json!({})).await.0, -32601);
        let (code, told) = far.refused(5, "initialize", json!({"protocolVersion": 1})).await;
        assert_eq!(code, -32600);
        assert!(told.contains("cannot be repeated"), "{told}");
        far.leave().await;
    }

    #[tokio::test]
    async fn while_one_request_runs_others_are_answered_and_it_can_be_withdrawn() {
        let mut far = Far::introduced().await;
        let agent = Arc::clone(&far.agent);
        let session = store::new_id().unwrap();
        let header = Header::new(session.clone(), "/".into());
        agent.sessions().open(header, Conversation::new(ChatRequest::default())).unwrap();
        // As long as this is held, a turn waits for its connection.
        let connecting = agent.client.lock().await;
        for end in ["$/cancel_request", "session/cancel"] {
            far.send(1, "session/prompt", prompt(&session)).await;
            let (code, told) = far.refused(2, "session/prompt", prompt(&session)).await;
            assert_eq!(code, -32602);
            assert!(told.contains("cancel it first"), "{told}");
            // That of another request changes nothing.
            far.write(&json!({"jsonrpc": "2.0", "method": "$/cancel_request", "params": {"requestId": 2}}).to_string())
                .await;
            let params = if end == "session/cancel" { json!({"sessionId": session}) } else { json!({"requestId": 1}) };
            far.write(&json!({"jsonrpc": "2.0", "method": end, "params": params}).to_string()).await;
            assert_eq!(far.next().await, json!({"jsonrpc": "2.0", "id": 1, "result": {"stopReason": "cancelled"}}));
            assert!(agent.withdrawals().is_empty());
        }
        // The end of input ends a turn unanswered.
        far.send(3, "session/prompt", prompt(&session)).await;
        assert_eq!(far.refused(4, "session/fly", json!({})).await.0, -32601);
        far.leave().await;
        drop(connecting);
    }

    #[tokio::test]
    async fn an_editor_that_is_gone_ends_it() {
        let Far { input, lines, serving, .. } = Far::introduced().await;
        let mut far = lines.into_inner().into_inner().unsplit(input.unwrap());
        far.write_all(b"17\n").await.unwrap();
        let mut answer = [0; 8];
        far.read_exact(&mut answer).await.unwrap();
        far.write_all(b"17\n17\n17\n17\n17\n17\n17\n17\n17\n17\n17\n17\n17\n17\n17\n17\n").await.unwrap();
        drop(far);
        assert_eq!(serving.await.unwrap().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
