//! Connections to the members of a cluster, one of which is used at a time: [`Link`].

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use http::uri::PathAndQuery;
use livemark_cluster::EngineError;
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::options::{ConnectError, Options, User};
use crate::proto;

/// The largest answer that is read. Lists come in pages, and watches in fragments, so this is not a limit on either.
const LARGEST_ANSWER: usize = 64 << 20;
/// How often an idle connection is checked. Etcd takes it amiss to be asked more often than every 5 s.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// A connection to each member. Calls go to one of them, until it fails or is silent, and then to the next.
pub(crate) struct Link {
    members: Vec<Member>,
    /// The member that is asked, modulo their number.
    at: AtomicUsize,
    user: Option<User>,
    token: RwLock<Option<MetadataValue<Ascii>>>,
}

struct Member {
    endpoint: String,
    channel: Channel,
}

/// A call under way. Where it is given up, the next call goes to the next member: this one was too slow.
struct Turn<'a> {
    link: &'a Link,
    at: usize,
    is_over: bool,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.link.turn_from(self.at);
        }
    }
}

impl Link {
    pub(crate) fn new(endpoints: &[String], options: &Options) -> Result<Self, ConnectError> {
        if endpoints.is_empty() {
            return Err(ConnectError::NoEndpoint);
        }
        let members = endpoints.iter().map(|endpoint| Member::new(endpoint, options)).collect::<Result<_, _>>()?;
        Ok(Self { members, at: AtomicUsize::new(0), user: options.user.clone(), token: RwLock::default() })
    }

    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| member.endpoint.clone()).collect()
    }

    /// Goes on to the next member, unless somebody else has.
    fn turn_from(&self, at: usize) {
        // Relaxed (no edge): which member is asked is a matter of luck.
        let _ = self.at.compare_exchange(at, at.wrapping_add(1), Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Asks one member, and authenticates again where it does not know us any more.
    pub(crate) async fn ask<Q, A>(&self, method: &'static str, question: Q) -> Result<A, EngineError>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let at = self.at();
        let asked = async {
            let (member, mut is_known) = (self.member(at), false);
            loop {
                let token = self.token();
                let request = Self::with_token(question.clone(), token.as_ref());
                match member.ask(method, request).await {
                    Err(status) if !is_known && self.forgets_us(&status) => {
                        self.authenticate(member, token.as_ref()).await?;
                        is_known = true;
                    }
                    asked => return asked,
                }
            }
        };
        self.in_turn(at, asked).await
    }

    /// Opens a stream of questions and answers with its first question, and returns both ends.
    pub(crate) async fn open<Q, A>(&self, method: &'static str, first: Q) -> Result<Stream<Q, A>, EngineError>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let at = self.at();
        let opened = async {
            let (member, mut is_known) = (self.member(at), false);
            loop {
                let token = self.token();
                let (questions, sent) = mpsc::channel(1);
                // It is sent before the answer's head comes, which may only come with the first answer.
                let _ = questions.try_send(first.clone());
                let mut request = Self::with_token(ReceiverStream::new(sent), token.as_ref());
                // A member that has lost its cluster says so, and is not silent.
                request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
                match member.open(method, request).await {
                    Err(status) if !is_known && self.forgets_us(&status) => {
                        self.authenticate(member, token.as_ref()).await?;
                        is_known = true;
                    }
                    opened => return Ok(Stream { questions, answers: opened?, at }),
                }
            }
        };
        self.in_turn(at, opened).await
    }

    /// Reads the next answer of a stream. Dropping the future loses nothing, and the next call goes to another member.
    pub(crate) async fn next<Q, A>(&self, stream: &mut Stream<Q, A>) -> Result<A, EngineError> {
        let next = async {
            let answer = stream.answers.message().await?;
            answer.ok_or_else(|| Status::unavailable("the stream ended"))
        };
        self.in_turn(stream.at, next).await
    }

    fn at(&self) -> usize {
        // Relaxed (no edge): as above.
        self.at.load(Ordering::Relaxed)
    }

    fn member(&self, at: usize) -> &Member {
        &self.members[at % self.members.len()]
    }

    /// Awaits a member's answer. Where it fails, or is given up, the next call goes to the next member.
    async fn in_turn<T>(&self, at: usize, answer: impl Future<Output = Result<T, Status>>) -> Result<T, EngineError> {
        let mut turn = Turn { link: self, at, is_over: false };
        let done = answer.await;
        // Whoever refuses has answered.
        turn.is_over = done.as_ref().map_or_else(is_an_answer, |_| true);
        done.map_err(|status| explain(&self.member(at).endpoint, &status))
    }

    fn token(&self) -> Option<MetadataValue<Ascii>> {
        self.token.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn with_token<T>(message: T, token: Option<&MetadataValue<Ascii>>) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = token {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }

    /// Whether we have a name that this member does not know, or not any more: a restart forgets all tokens
    /// (etcd-io/etcd#12385), and they expire.
    fn forgets_us(&self, status: &Status) -> bool {
        let is_stale = || status.message().contains("invalid auth token") || status.message().contains("old revision");
        let is_nobody = || status.message().contains("user name is empty");
        self.user.is_some()
            && match status.code() {
                Code::Unauthenticated => true,
                Code::InvalidArgument => is_stale() || is_nobody(),
                _ => false,
            }
    }

    /// Gets a new token, unless somebody else has since `old`.
    async fn authenticate(&self, member: &Member, old: Option<&MetadataValue<Ascii>>) -> Result<(), Status> {
        let Some(user) = &self.user else { return Ok(()) };
        if self.token().as_ref() != old {
            return Ok(());
        }
        let question = proto::AuthenticateRequest { name: user.name.clone(), password: user.password.clone() };
        let answer: proto::AuthenticateResponse =
            member.ask("/etcdserverpb.Auth/Authenticate", Request::new(question)).await?;
        let token = answer.token.parse().map_err(|_| Status::internal("the token of etcd is no header's value"))?;
        *self.token.write().unwrap_or_else(PoisonError::into_inner) = Some(token);
        Ok(())
    }
}

/// Both ends of a stream. What is not read of it is lost with it.
#[derive(Debug)]
pub(crate) struct Stream<Q, A> {
    pub(crate) questions: mpsc::Sender<Q>,
    answers: Streaming<A>,
    /// Whose it is.
    at: usize,
}

impl Member {
    fn new(endpoint: &str, options: &Options) -> Result<Self, ConnectError> {
        let wrong = |why: String| ConnectError::Endpoint { endpoint: endpoint.to_owned(), why };
        let text = if endpoint.contains("://") { endpoint.to_owned() } else { format!("http://{endpoint}") };
        let built = Endpoint::from_shared(text).map_err(|error| wrong(cause(&error)))?;
        let built = built
            .connect_timeout(options.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE);
        let built = match built.uri().scheme_str() {
            Some("http") => built,
            Some("https") => with_tls(built, options).map_err(wrong)?,
            _ => return Err(wrong("it begins with neither http:// nor https://".to_owned())),
        };
        Ok(Self { endpoint: endpoint.to_owned(), channel: built.connect_lazy() })
    }

    async fn grpc(&self) -> Result<Grpc<Channel>, Status> {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(LARGEST_ANSWER);
        grpc.ready().await.map_err(|error| Status::unavailable(cause(&error)))?;
        Ok(grpc)
    }

    async fn ask<Q, A>(&self, method: &'static str, request: Request<Q>) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let codec = ProstCodec::default();
        let answer = self.grpc().await?.unary(request, PathAndQuery::from_static(method), codec).await?;
        Ok(answer.into_inner())
    }

    async fn open<Q, A>(
        &self,
        method: &'static str,
        request: Request<ReceiverStream<Q>>,
    ) -> Result<Streaming<A>, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let codec = ProstCodec::default();
        let answer = self.grpc().await?.streaming(request, PathAndQuery::from_static(method), codec).await?;
        Ok(answer.into_inner())
    }
}

#[cfg(feature = "tls")]
fn with_tls(endpoint: Endpoint, options: &Options) -> Result<Endpoint, String> {
    use tonic::transport::{Certificate, ClientTlsConfig, Identity};

    let Some(tls) = &options.tls else { return Err("nothing is said of whom to trust: `Options::tls`".to_owned()) };
    let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&tls.authority));
    if let Some((certificate, key)) = &tls.identity {
        config = config.identity(Identity::from_pem(certificate, key));
    }
    if let Some(domain) = &tls.domain {
        config = config.domain_name(domain);
    }
    endpoint.tls_config(config).map_err(|error| cause(&error))
}

#[cfg(not(feature = "tls"))]
fn with_tls(_: Endpoint, _: &Options) -> Result<Endpoint, String> {
    Err("this build has no TLS: see the feature `tls`".to_owned())
}

/// Whether a member has decided something, and another one need not be asked.
fn is_an_answer(status: &Status) -> bool {
    !matches!(
        status.code(),
        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded | Code::Internal | Code::Aborted
    )
}

/// What a member's refusal is to the protocol. What is not known to have done nothing may have been done.
fn explain(whose: &str, status: &Status) -> EngineError {
    let says = status.message();
    match status.code() {
        Code::NotFound if says.contains("lease not found") => EngineError::LeaseGone,
        Code::OutOfRange if says.contains("compacted") => EngineError::Compacted,
        Code::ResourceExhausted if says.contains("space exceeded") => EngineError::NoSpace,
        Code::PermissionDenied | Code::Unauthenticated | Code::InvalidArgument | Code::FailedPrecondition => {
            EngineError::Denied(says.to_owned())
        }
        // Where there is a cause, the connection broke, and the status alone says little.
        _ => EngineError::Unknown(format!("{whose}: {}", cause(status))),
    }
}

/// An error and what caused it, in one line.
pub(crate) fn cause(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        next = error.source();
    }
    text
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("endpoints", &self.endpoints()).finish_non_exhaustive()
    }
}
