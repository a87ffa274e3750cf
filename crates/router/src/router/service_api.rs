//! Services of a router: what its driver and its operator can do with them.
use super::Router;
use crate::service::{BackendConfig, BackendId, ServiceConfig, Services};
use keepstate_engine::Instant;

impl Router {
    /// Replaces the services; connections live on. Services with a known name keep their counts and drained backends. Backends no longer named get no
    /// packet any more, or none after [`ServiceConfig::drain`]: UDP flows go to other backends, TCP connections are reset. Check the services with [`validate`](crate::service::validate) before.
    ///
    /// ```
    /// use keepstate_engine::{Engine, Instant, Secret, Sysctls};
    /// use keepstate_router::service::{BackendConfig, BackendStatus, ServiceConfig, Transport};
    /// use keepstate_router::{FibTable, Router};
    /// use keepstate_rules::Program;
    /// let engine = Engine::new(Sysctls::default(), Secret([7; 16]));
    /// let mut router = Router::new(engine, Program::default(), FibTable::default(), (1, 2));
    /// let web = ServiceConfig::new("web", ([192, 0, 2, 80].into(), 80..=80), Transport::Tcp)
    ///     .with_backend(BackendConfig { address: [10, 0, 0, 11].into(), port: Some(8080), weight: 1 })
    ///     .with_backend(BackendConfig { address: [10, 0, 0, 12].into(), port: Some(8080), weight: 2 });
    /// router.replace_services(vec![web], Instant(0));
    /// // A health check outside the router has failed.
    /// let first = router.services().backends().next().unwrap().0;
    /// assert!(router.set_health(first, false, Instant(0)));
    /// assert_eq!(router.services().backends().next().unwrap().2.status(), BackendStatus::Down);
    /// ```
    pub fn replace_services(&mut self, services: Vec<ServiceConfig>, now: Instant) {
        self.services.replace(services, &self.fib, &mut self.engine, now);
    }

    /// The services.
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// Counts connections that were put into the table from outside (restored from a file) for the services they belong to.
    pub fn adopt_connections(&mut self, now: Instant) {
        self.services.adopt_connections(&self.fib, &mut self.engine, now);
    }

    /// As [`Router::adopt_connections`], but a piece with each [`Router::poll`]: beside traffic.
    pub fn begin_adoption(&mut self) {
        self.services.begin_adoption();
    }

    /// The services, with connection counts as of now (of up to 65,536 connections), not as of the last sweep.
    pub fn services_with_fresh_counts(&mut self, now: Instant) -> &Services {
        self.services.expire_connections(&self.fib, &mut self.engine, true, now);
        &self.services
    }

    /// How many connections of services are known, with those that have ended since they were last counted.
    pub fn service_connections(&self) -> usize {
        self.services.connection_count()
    }

    /// Counts up to `most` connections of services anew, and returns how many it looked at; the next call goes on. Calls for [`Router::service_connections`] in all bring every count up to date.
    pub fn count_service_connections(&mut self, most: usize, now: Instant) -> usize {
        self.services.count_connections(&self.engine, most, now)
    }

    /// Reports the result of a backend's health check; true if its state has changed. When a backend goes down, its UDP connections and those without a reply are removed,
    /// so that the next packet goes to another backend; TCP is kept or reset, as the service is configured.
    pub fn set_health(&mut self, backend: BackendId, is_up: bool, now: Instant) -> bool {
        self.services.set_health(backend, is_up, &self.fib, (&mut self.engine, now))
    }

    /// Drains every backend that `matching` is true for, or ends that: a drained backend keeps its connections and gets no new ones. Returns how many match.
    pub fn drain(&mut self, drained: bool, matching: impl Fn(&ServiceConfig, &BackendConfig) -> bool) -> usize {
        self.services.drain(drained, matching)
    }
}
