//! What a router's driver and its operator can do with services.
use super::Router;
use crate::service::{BackendConfig, BackendId, ServiceConfig, Services};
use keepstate_engine::Instant;

impl Router {
    /// Exchanges the services; connections live on. Services of a name that is known go on with their counts and their drained backends; backends that are named no more get no new
    /// connections, and are forgotten when the last of theirs has left the table. What [`validate`](crate::service::validate) finds is to be mended before.
    ///
    /// ```
    /// use keepstate_engine::{Engine, Instant, Sysctls, Secret};
    /// use keepstate_router::service::{Backend, Service, State, Transport};
    /// use keepstate_router::{Map, Router};
    /// use keepstate_rules::{NoLibrary, compile, parse_with};
    /// let (tree, sources) = parse_with("none", "", &NoLibrary, &[]).unwrap();
    /// let engine = Engine::new(Sysctls::default(), Secret([7; 16]), Instant(0));
    /// let mut router = Router::new(engine, compile(&tree, &sources).unwrap(), Map::default(), (1, 2));
    /// let web = Service::new("web", ([192, 0, 2, 80].into(), 80..=80), Transport::Tcp)
    ///     .with(Backend { address: [10, 0, 0, 11].into(), port: Some(8080), weight: 1 })
    ///     .with(Backend { address: [10, 0, 0, 12].into(), port: Some(8080), weight: 2 });
    /// router.serve(vec![web], Instant(0));
    /// // Somebody asks the backends how they are, and says it.
    /// let first = router.services().backends().next().unwrap().0;
    /// assert!(router.judge(first, false, Instant(0)));
    /// assert_eq!(router.services().backends().next().unwrap().2.state(), State::Down);
    /// ```
    pub fn replace_services(&mut self, services: Vec<ServiceConfig>, now: Instant) {
        self.services.replace(services, &self.fib, &mut self.engine, now);
    }

    /// The services.
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// Counts the connections that somebody has put into the table by other means, as from a table that was kept, to the services they belong to.
    pub fn adopt_connections(&mut self, now: Instant) {
        self.services.adopt_connections(&self.fib, &mut self.engine, now);
    }

    /// The services, with counts of connections as they are now and not as they were a pass ago, unless these are very many.
    pub fn services_with_fresh_counts(&mut self, now: Instant) -> &Services {
        self.services.expire_connections(&self.engine, true, now);
        &self.services
    }

    /// Says what a check has found of a backend; true if that is news. When it is down its UDP connections end, so that the next datagram finds another, and so do connections that
    /// nobody has answered yet; TCP is kept or reset, as the service has it.
    pub fn set_health(&mut self, backend: BackendId, is_up: bool, now: Instant) -> bool {
        self.services.set_health(backend, is_up, &mut self.engine, now)
    }

    /// Drains (or no longer) every backend that `matching` says: it keeps its connections and gets no new ones. How many these are.
    pub fn drain(&mut self, drained: bool, matching: impl Fn(&ServiceConfig, &BackendConfig) -> bool) -> usize {
        self.services.drain(drained, matching)
    }
}
