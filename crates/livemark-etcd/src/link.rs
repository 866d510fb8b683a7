//! Connections to the members of a cluster, one of which is used at a time: [`Link`].

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

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
/// For how long a member may be silent before whoever stops waiting for it goes on to the next one.
const PATIENCE: Duration = Duration::from_millis(250);
/// How often one call is authenticated anew: what is asked meanwhile may make a token old again.
const AUTHENTICATIONS: usize = 3;

/// A connection to each member. Calls go to one of them, until it fails or is silent, and then to the next.
pub(crate) struct Link {
    members: Vec<Member>,
    /// The member that is asked, modulo their number.
    at: AtomicUsize,
    user: Option<User>,
    token: RwLock<Option<MetadataValue<Ascii>>>,
}

struct Member {
    name: String,
    endpoint: Endpoint,
    channel: Mutex<Channel>,
    /// The connection did not answer: the next call has another one. Those under way stay where they are. A connection that
    /// a firewall has forgotten is found dead after twice the keep-alive, which is longer than most leases.
    is_dead: AtomicBool,
}

/// A call under way. Where it is given up after some time, the next call goes to the next member: this one was too slow.
struct Turn<'a> {
    link: &'a Link,
    at: usize,
    began: Instant,
    is_over: bool,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.is_over && self.began.elapsed() >= PATIENCE {
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
        self.members.iter().map(|member| member.name.clone()).collect()
    }

    /// Goes on to the next member, unless somebody else has. This one has another connection when it is its turn again.
    pub(crate) fn turn_from(&self, at: usize) {
        // Relaxed (no edge): which member is asked is a matter of luck.
        if self.at.compare_exchange(at, at.wrapping_add(1), Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            // Relaxed (no edge): as above.
            self.member(at).is_dead.store(true, Ordering::Relaxed);
        }
    }

    /// Asks one member, and authenticates again where it does not know us any more.
    pub(crate) async fn ask<Q, A>(&self, method: &'static str, question: Q) -> Result<A, EngineError>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let at = self.at();
        let asked = async {
            let (member, mut tries) = (self.member(at), 0..AUTHENTICATIONS);
            loop {
                let token = self.token();
                let request = Self::with_token(question.clone(), token.as_ref());
                match member.ask(method, request).await {
                    Err(status) if self.forgets_us(&status) && tries.next().is_some() => {
                        self.authenticate(member, token.as_ref()).await?;
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
            let (member, mut tries) = (self.member(at), 0..AUTHENTICATIONS);
            loop {
                let token = self.token();
                let (questions, sent) = mpsc::channel(1);
                // It is sent before the answer's head comes, which may only come with the first answer.
                let _ = questions.try_send(first.clone());
                let mut request = Self::with_token(ReceiverStream::new(sent), token.as_ref());
                // A member that has lost its cluster says so, and is not silent.
                request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
                match member.open(method, request).await {
                    Err(status) if self.forgets_us(&status) && tries.next().is_some() => {
                        self.authenticate(member, token.as_ref()).await?;
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

    pub(crate) fn at(&self) -> usize {
        // Relaxed (no edge): as above.
        self.at.load(Ordering::Relaxed)
    }

    fn member(&self, at: usize) -> &Member {
        &self.members[at % self.members.len()]
    }

    /// Awaits a member's answer. Where it fails, or is given up, the next call goes to the next member.
    async fn in_turn<T>(&self, at: usize, answer: impl Future<Output = Result<T, Status>>) -> Result<T, EngineError> {
        let mut turn = Turn { link: self, at, began: Instant::now(), is_over: false };
        let done = answer.await;
        turn.is_over = true;
        // Whoever refuses has answered.
        if done.as_ref().is_err_and(|status| !is_an_answer(status)) {
            self.turn_from(at);
        }
        done.map_err(|status| explain(&self.member(at).name, &status))
    }

    /// Forgets the token, where a stream has ended for it: the next call gets another one.
    pub(crate) fn forget_token(&self) {
        *self.token.write().unwrap_or_else(PoisonError::into_inner) = None;
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
    /// (etcd-io/etcd#12385), they expire, and signed ones are of a state of the users and roles.
    fn forgets_us(&self, status: &Status) -> bool {
        let is_stale = is_stale_token(status.message()) || status.message().contains("user name is empty");
        self.user.is_some() && (status.code() == Code::Unauthenticated || is_stale)
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
        let mut token: MetadataValue<Ascii> =
            answer.token.parse().map_err(|_| Status::internal("the token of etcd is no header's value"))?;
        // Who logs requests leaves it out.
        token.set_sensitive(true);
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
        if endpoint.contains('@') {
            // Not with what is before it, which may be a password.
            let endpoint = endpoint.rsplit('@').next().unwrap_or_default().to_owned();
            let why = "a user is named in `Options::user`, and not in an endpoint".to_owned();
            return Err(ConnectError::Endpoint { endpoint, why });
        }
        let scheme = if wants_tls(options) { "https" } else { "http" };
        let text = if endpoint.contains("://") { endpoint.to_owned() } else { format!("{scheme}://{endpoint}") };
        let built = Endpoint::from_shared(text).map_err(|error| wrong(cause(&error)))?;
        let built = built
            .connect_timeout(options.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE);
        let built = match built.uri().scheme_str() {
            // What is said of whom to trust would be for nothing, and a password would be in plain text.
            Some("http") if wants_tls(options) => {
                return Err(wrong("it is plain text, and TLS is asked for".to_owned()));
            }
            Some("http") => built,
            Some("https") => with_tls(built, options).map_err(wrong)?,
            _ => return Err(wrong("it begins with neither http:// nor https://".to_owned())),
        };
        let channel = Mutex::new(built.connect_lazy());
        Ok(Self { name: endpoint.to_owned(), endpoint: built, channel, is_dead: AtomicBool::new(false) })
    }

    fn channel(&self) -> Channel {
        let mut channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        // Relaxed (no edge): under the lock, and a matter of luck.
        if self.is_dead.swap(false, Ordering::Relaxed) {
            *channel = self.endpoint.connect_lazy();
        }
        channel.clone()
    }

    async fn grpc(&self) -> Result<Grpc<Channel>, Status> {
        let mut grpc = Grpc::new(self.channel()).max_decoding_message_size(LARGEST_ANSWER);
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
fn wants_tls(options: &Options) -> bool {
    options.tls.is_some()
}

#[cfg(not(feature = "tls"))]
fn wants_tls(_: &Options) -> bool {
    false
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

/// Whether a member has decided something, and another one need not be asked. What stands before it, such as a proxy, has not.
fn is_an_answer(status: &Status) -> bool {
    let is_etcd = ["etcdserver:", "auth:"].iter().any(|begin| status.message().starts_with(begin));
    is_etcd
        && !matches!(
            status.code(),
            Code::Unavailable
                | Code::Unknown
                | Code::Cancelled
                | Code::DeadlineExceeded
                | Code::Internal
                | Code::Aborted
        )
}

/// Whether etcd does not take a token any more. Its versions say so in several words, and with several codes.
pub(crate) fn is_stale_token(says: &str) -> bool {
    ["invalid auth token", "revision of auth store is old", "revision in header is old", "old revision"]
        .iter()
        .any(|words| says.contains(words))
}

/// Whether an answer has no room in one message.
pub(crate) fn is_too_large(says: &str) -> bool {
    // As servers and clients of gRPC say it, in Go and here.
    says.contains("larger than max") || says.contains("message length too large")
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
        // Asked again it would be no better. What has no such method is no etcd.
        Code::Unimplemented => EngineError::Denied(format!("{whose}: {}", in_words(status))),
        Code::ResourceExhausted | Code::OutOfRange if is_too_large(says) => EngineError::Denied(says.to_owned()),
        _ => EngineError::Unknown(format!("{whose}: {}", in_words(status))),
    }
}

/// What a status says, and what caused it, without what it is made of.
fn in_words(status: &Status) -> String {
    let says = match status.message() {
        "" => status.code().description(),
        says => says,
    };
    std::error::Error::source(status).map_or_else(
        || says.to_owned(),
        |error| {
            let cause = cause(error);
            if says.contains(&cause) { says.to_owned() } else { format!("{says}: {cause}") }
        },
    )
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The words of several versions of etcd, with the codes that they come with. Seen to fail with the words of one version:
    /// a user is denied until the process ends.
    #[test]
    fn a_token_that_is_not_taken_any_more_is_known_by_its_words() {
        let options = Options { user: Some(User::new("worker", "secret")), ..Options::default() };
        let link = |options: &Options| Link {
            members: vec![],
            at: AtomicUsize::new(0),
            user: options.user.clone(),
            token: RwLock::default(),
        };
        let (known, nobody) = (link(&options), link(&Options::default()));
        for status in [
            Status::unauthenticated("etcdserver: invalid auth token"),
            Status::invalid_argument("etcdserver: revision of auth store is old"),
            Status::unknown("auth: revision in header is old"),
            Status::unknown("etcdserver: invalid auth token"),
            Status::invalid_argument("etcdserver: user name is empty"),
        ] {
            assert!(known.forgets_us(&status) && !nobody.forgets_us(&status), "{status}");
        }
        for status in [
            Status::permission_denied("etcdserver: permission denied"),
            Status::invalid_argument("etcdserver: authentication failed, invalid user ID or password"),
        ] {
            assert!(!known.forgets_us(&status), "{status}");
        }
    }

    /// Seen to fail with answers that are told by their code: a proxy's is taken for etcd's, and no other member is asked.
    #[test]
    fn a_proxy_is_no_member() {
        assert!(is_an_answer(&Status::permission_denied("etcdserver: permission denied")));
        for status in [
            Status::unimplemented("grpc-status header missing, mapped from HTTP status code 404"),
            Status::permission_denied("mapped from HTTP status code 403"),
            Status::unavailable("etcdserver: no leader"),
        ] {
            assert!(!is_an_answer(&status), "{status}");
        }
    }

    /// Seen to fail with refusals that are taken for lost answers: they are asked again until a TTL is over.
    #[test]
    fn what_cannot_be_done_is_not_asked_again() {
        for status in [
            Status::unimplemented("unknown service"),
            Status::resource_exhausted("grpc: received message larger than max (3 vs. 2)"),
            Status::out_of_range("Error, decoded message length too large: found 3 bytes, the limit is: 2 bytes"),
            Status::invalid_argument("etcdserver: request is too large"),
        ] {
            assert!(matches!(explain("a", &status), EngineError::Denied(_)), "{status}");
        }
        let busy = Status::resource_exhausted("etcdserver: too many requests");
        assert_eq!(explain("a", &busy), EngineError::Unknown("a: etcdserver: too many requests".to_owned()));
        assert_eq!(
            explain("a", &Status::new(Code::Aborted, "")),
            EngineError::Unknown("a: The operation was aborted".to_owned())
        );
    }
}
