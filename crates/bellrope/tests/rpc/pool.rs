//! A pool lends connections to threads that need one of their own for a moment.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use bellrope::{
    client::{Pool, PoolConfig, PoolError},
    server::ServerConfig,
};

use bellrope_testkit::support::{PATIENCE, builder, eventually, serve};

#[test]
fn threads_share_few_connections_and_reuse_nearly_all_of_them() {
    let server = serve(ServerConfig::default());
    let pool = Pool::new(PoolConfig::new(&server.path));
    std::thread::scope(|scope| {
        for thread in 0..8_u32 {
            let pool = pool.clone();
            scope.spawn(move || {
                let mut reply = Vec::new();
                for call in 0..100_u32 {
                    let payload = [thread.to_le_bytes(), call.to_le_bytes()].concat();
                    let mut connection = pool.acquire().unwrap();
                    let echo = connection.message_type("echo").unwrap();
                    connection.call(echo, &payload, &mut reply).unwrap();
                    assert_eq!(reply, payload);
                }
            });
        }
    });
    let stats = pool.stats();
    assert_eq!((stats.acquired, stats.reused + stats.created, stats.broken), (800, 800, 0));
    assert!(stats.reused * 100 > 95 * stats.acquired, "{stats:?}");
    assert!(pool.idle() as u64 == stats.created && stats.created <= 8);
}

#[test]
fn a_full_pool_lets_wait_and_then_says_its_limit() {
    let server = serve(ServerConfig::default());
    let mut config = PoolConfig::new(&server.path);
    config.max_size = 2;
    config.acquire_timeout = Duration::from_millis(30);
    let pool = Pool::new(config.clone());
    let held = [pool.acquire().unwrap(), pool.acquire().unwrap()];
    let error = pool.acquire().unwrap_err();
    assert!(matches!(error, PoolError::Exhausted { max_size: 2, .. }), "{error}");
    assert!(error.to_string().starts_with("all 2 connections of the pool (max_size) are in use"), "{error}");
    drop(held);

    config.acquire_timeout = PATIENCE;
    let pool = Pool::new(config);
    let held = [pool.acquire().unwrap(), pool.acquire().unwrap()];
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| pool.acquire().map(drop));
        drop(held);
        waits.join().unwrap().unwrap();
    });
}

#[test]
fn idle_connections_are_few_and_closed_in_time() {
    let server = serve(ServerConfig::default());
    let mut config = PoolConfig::new(&server.path);
    config.max_idle = 2;
    let pool = Pool::new(config.clone());
    let held: Vec<_> = (0..5).map(|_| pool.acquire().unwrap()).collect();
    drop(held);
    assert_eq!((pool.idle(), pool.stats().expired), (2, 3));
    drop(pool);

    config.idle_timeout = Duration::from_millis(50);
    let pool = Pool::new(config);
    let held: Vec<_> = (0..2).map(|_| pool.acquire().unwrap()).collect();
    drop(held);
    eventually("the idle ones are closed", || pool.idle() == 0);
    eventually("and the server knows", || server.server.metrics().active_connections() == 0);
    assert_eq!(pool.stats().expired, 2);
}

#[test]
fn a_connection_that_broke_while_idle_is_not_lent() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run").join("test.sock");
    let first = builder(&Arc::default()).bind(&path).unwrap();
    let pool = Pool::new(PoolConfig::new(&path));
    drop(pool.acquire().unwrap());
    drop(first);
    assert!(matches!(pool.acquire().unwrap_err(), PoolError::Connect(_)));
    let _second = builder(&Arc::default()).bind(&path).unwrap();
    let mut connection = pool.acquire().unwrap();
    let echo = connection.message_type("echo").unwrap();
    connection.call(echo, b"x", &mut Vec::new()).unwrap();
    assert_eq!((pool.stats().broken, pool.stats().created), (1, 2));
}

#[test]
fn a_connection_with_calls_under_way_is_not_lent_again() {
    let server = serve(ServerConfig::default());
    let pool = Pool::new(PoolConfig::new(&server.path));
    let mut connection = pool.acquire().unwrap();
    let never = connection.message_type("never").unwrap();
    connection.submit(never, b"").unwrap();
    let running = || server.server.metrics().snapshot().types.iter().map(|row| row.running).sum::<u64>();
    eventually("it is under way", || running() == 1);
    drop(connection);
    assert_eq!((pool.idle(), pool.stats().broken), (0, 1));
    eventually("its call is dropped", || server.dropped() == 1);
}

#[test]
fn the_lock_is_not_held_across_calls() {
    let server = serve(ServerConfig::default());
    let pool = Pool::new(PoolConfig::new(&server.path));
    let mut slow = pool.acquire().unwrap();
    let never = slow.message_type("never").unwrap();
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            slow.submit(never, b"").unwrap();
            eventually("others go on meanwhile", || done.load(SeqCst) == 20);
        });
        let deadline = Instant::now() + PATIENCE;
        while done.load(SeqCst) < 20 {
            assert!(Instant::now() < deadline);
            drop(pool.acquire().unwrap());
            done.fetch_add(1, SeqCst);
        }
    });
}
