//! Types that cannot travel, and streams and futures that are said in another way.

#[bellrope_macros::service]
trait Arguments {
    fn this(&self, other: Self) -> u64;
    fn part(&self, other: Option<Self::Part>) -> u64;
    fn bytes(&self, raw: Cow<'_, [u8]>) -> u64;
    fn object(&self, value: Box<dyn ToString>) -> u64;
    fn function(&self, value: Vec<fn() -> u8>) -> u64;
    fn pointer(&self, value: *const u8) -> u64;
    fn inferred(&self, value: Vec<_>) -> u64;
    fn chosen(&self, #[cfg(unix)] value: u64) -> u64;
    fn may_be_missing(&self, #[serde(default)] value: u64) -> u64;
    async fn perhaps(&self, items: Option<Incoming<u64>>) -> u64;
    async fn lent(&self, items: &Incoming<u64>) -> u64;
    fn borrowing(&self, query: &Query<'_>) -> u64;
    fn twice(&self, query: &&str) -> u64;
}

#[bellrope_macros::service]
trait Answers {
    fn future(&self) -> impl Future<Output = u64>;
    fn boxed_future(&self) -> BoxFuture<'static, u64>;
    fn boxed(&self) -> BoxStream<'static, u64>;
    fn pinned(&self) -> Pin<Box<dyn Stream<Item = u64>>>;
    fn within(&self) -> Result<Pin<Box<dyn Stream<Item = u64>>>, String>;
    fn never(&self) -> !;
    fn this(&self) -> Vec<Self>;
}

#[bellrope_macros::service]
trait Keywords {
    unsafe fn trust(&self) -> u64;
    #[cfg_attr(unix, blocking)]
    fn wait(&self) -> u64;
    #[cfg_attr(unix, doc = "As it should be", cfg(unix))]
    fn there(&self) -> u64;
}

fn main() {}
