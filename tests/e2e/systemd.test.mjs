// What a service manager does with us: sockets it opened, states it is told, its watchdog.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { basename } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { atEnd, binary, chat, cleanEnv, CLIENT_KEY, freePort, makeDir, probe, request, scenario, startGateway, toIni, until } from '../lib/gateway.mjs';
import { play, providerFor, startFakeOpenai } from '../lib/fake_openai.mjs';
import { readChatStream } from '../lib/raw.mjs';

const DEMO = { 'provider demo': { type: 'demo' } };

const built = new Map();

/** A program of tests/lib, compiled once. */
function tool(name) {
    if (!built.has(name)) {
        const source = fileURLToPath(new URL(`../lib/${name}.c`, import.meta.url));
        const program = `${makeDir()}/${basename(name)}`;
        execFileSync(process.env.CC ?? 'cc', ['-std=gnu17', '-D_GNU_SOURCE', '-Wall', '-Wextra', '-O1', '-o', program, source]);
        built.set(name, program);
    }
    return built.get(name);
}

/** The gateway on sockets that were opened for it, until the test ends; it may end by itself. */
async function activate(t, { sockets, config, env = {} }) {
    const dir = makeDir();
    const run = { output: '', exit: null };
    writeFileSync(`${dir}/chatmux.ini`, toIni({ auth: { keys: [CLIENT_KEY] }, store: { state_dir: dir }, ...DEMO, ...config }));
    const child = spawn(tool('activate'), [...sockets, '--', binary, 'serve', '-c', `${dir}/chatmux.ini`], {
        cwd: dir,
        env: cleanEnv(dir, env),
        stdio: ['ignore', 'pipe', 'pipe'],
    });
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => (run.output += text));
    run.child = child;
    run.exited = new Promise((done) => child.once('close', (code) => done((run.exit = { code }))));
    atEnd(t, async () => {
        if (!run.exit) child.kill('SIGTERM');
        await run.exited;
        assert.doesNotMatch(run.output, /Sanitizer|runtime error/, run.output);
    });
    return run;
}

const ask = (target) =>
    new Promise((done, fail) => {
        const body = JSON.stringify(chat('demo', 'hello'));
        const headers = { authorization: `Bearer ${CLIENT_KEY}`, 'content-length': Buffer.byteLength(body) };
        const req = http.request({ host: '127.0.0.1', method: 'POST', path: '/v1/chat/completions', agent: false, timeout: 20_000, headers, ...target }, (res) => {
            res.resume().on('end', () => done(res.statusCode));
        });
        req.on('error', fail).on('timeout', () => req.destroy(new Error('no answer')));
        req.end(body);
    });

scenario('sockets of both families and a unix socket are taken over, beside an address of our own', async (t) => {
    const path = `${makeDir()}/passed.sock`;
    const six = await freePort();
    const own = await freePort();
    const gw = await startGateway(t, {
        config: { ...DEMO, server: { listen: ['systemd', `127.0.0.1:${own}`] } },
        launcher: (gw) => [tool('activate'), `4:${gw.port}`, `6:${six}`, `unix:${path}`, '--'],
    });
    assert.equal(await ask({ port: gw.port }), 200);
    assert.equal(await ask({ host: '::1', port: six }), 200);
    assert.equal(await ask({ socketPath: path }), 200);
    assert.equal(await ask({ port: own }), 200);
    assert.match(gw.output, new RegExp(`listening on port ${six} from systemd \\(s1\\)`));
    for (const fd of [3, 4, 5]) {
        const flags = Number.parseInt(/flags:\s+(\d+)/.exec(readFileSync(`/proc/${gw.pid}/fdinfo/${fd}`, 'utf8'))[1], 8);
        assert.ok(flags & 0o2000000, `descriptor ${fd} is closed when a program is started`);
        assert.ok(flags & 0o4000, `descriptor ${fd} does not block`);
    }
    await gw.stop();
    assert.ok(existsSync(path), 'the file of a socket belongs to who made it');
});

scenario('what connected before the gateway ran is served', async (t) => {
    const port = await freePort();
    const path = `${makeDir()}/early.sock`;
    const run = await activate(t, { sockets: [`4:${port}`, `unix:${path}`], config: { server: { listen: 'systemd' } }, env: { ACTIVATE_HOLD: '700' } });
    await until(() => run.output.includes('listening'), 'the sockets');
    const answers = Array.from({ length: 30 }, (_, i) => ask(i % 3 === 0 ? { socketPath: path } : { port }));
    await sleep(100);
    assert.ok(!/starts with/.test(run.output), 'the gateway was there too early for this test');
    assert.deepEqual(new Set(await Promise.all(answers)), new Set([200]));
});

scenario('what was not passed, or is no listening stream socket, is told', async (t) => {
    const port = await freePort();
    const systemd = { server: { listen: 'systemd' } };
    for (const [what, options, pattern] of [
        ['nothing', { sockets: [], config: systemd }, /cannot listen on systemd: no sockets were passed/],
        ['for another process', { sockets: [`4:${port}`], config: systemd, env: { ACTIVATE_PID: 'other' } }, /no sockets were passed to this process/],
        ['datagrams', { sockets: [`udp:${port}`], config: systemd }, /descriptor 3 \(s0\) is no listening stream socket/],
        ['a closed descriptor', { sockets: [`4:${port}`, 'closed'], config: systemd }, /descriptor 4 \(s1\) is no listening stream socket/],
        ['taken twice', { sockets: [`4:${port}`], config: { server: { listen: ['systemd', 'systemd'] } } }, /no sockets were passed/],
    ]) {
        const run = await activate(t, options);
        assert.equal((await run.exited).code, 2, `${what}: ${run.output}`);
        assert.match(run.output, pattern, what);
    }
});

scenario('without a client key sockets from systemd are refused: nobody knows who reaches them', async (t) => {
    const run = await activate(t, { sockets: [`4:${await freePort()}`], config: { auth: {}, server: { listen: 'systemd' } } });
    assert.equal((await run.exited).code, 1, run.output);
    assert.match(run.output, /server\.listen: systemd/);
});

scenario('sockets that the configuration does not name are told of', async (t) => {
    const other = await freePort();
    const gw = await startGateway(t, { config: DEMO, launcher: () => [tool('activate'), `4:${other}`, '--'] });
    await gw.waitLog(/systemd passes sockets, but server\.listen does not name systemd/);
});

/** The manager's end of the notification socket: {lines, env}. */
async function startSink(t, path) {
    const child = spawn(tool('notify_sink'), [path], { stdio: ['ignore', 'pipe', 'inherit'] });
    const sink = { lines: [], env: { NOTIFY_SOCKET: path } };
    let rest = '';
    child.stdout.setEncoding('utf8').on('data', (text) => {
        const lines = (rest + text).split('\n');
        rest = lines.pop();
        for (const line of lines) {
            sink.lines.push(line);
            sink.onLine?.(line);
        }
    });
    atEnd(t, () => child.kill('SIGKILL'));
    await until(() => sink.lines.shift() === 'bound', 'the notification socket');
    sink.states = () => sink.lines.filter((line) => line !== 'WATCHDOG=1');
    sink.wait = (pattern) => until(() => sink.lines.find((line) => pattern.test(line)), `the manager to hear ${pattern}`);
    return sink;
}

for (const [kind, path] of [
    ['a path', () => `${makeDir()}/notify`],
    ['an abstract name', () => `@chatmux-test-${process.pid}-${Date.now()}`],
])
    scenario(`ready, reloading and stopping are told (${kind})`, async (t) => {
        const sink = await startSink(t, path());
        const fake = await startFakeOpenai(t);
        const config = { ...DEMO, 'provider up': providerFor(fake) };
        const served = new Promise((done) => {
            sink.onLine = (line) => line === 'READY=1' && done(probe({ port: gwPort }));
        });
        let gwPort;
        const gw = await startGateway(t, {
            env: sink.env,
            config: (gw) => {
                gwPort = gw.port;
                return config;
            },
        });
        assert.equal(await served, 200, 'ready means that a request is answered');
        await sink.wait(/^STATUS=serving 2 providers$/);
        assert.deepEqual(sink.lines, ['READY=1', 'STATUS=serving 2 providers']);

        sink.lines.length = 0;
        gw.writeConfig(DEMO);
        gw.signal('SIGHUP');
        await sink.wait(/^STATUS=serving 1 provider$/);
        assert.match(sink.lines[0], /^RELOADING=1 MONOTONIC_USEC=\d+$/);
        assert.equal(sink.lines[1], 'READY=1');
        const now = Number(process.hrtime.bigint() / 1000n);
        const then = Number(sink.lines[0].split('=')[2]);
        assert.ok(now - then >= 0 && now - then < 10_000_000, `${now - then} us ago`);

        sink.lines.length = 0;
        gw.writeConfig('[nonsense]\n');
        gw.signal('SIGHUP');
        await sink.wait(/^STATUS=.*refused/);
        assert.match(sink.lines[0], /^RELOADING=1/);
        assert.equal(sink.lines[1], 'READY=1', 'it serves on');

        sink.lines.length = 0;
        await gw.stop();
        await sink.wait(/^STATUS=stopping/);
        assert.equal(sink.lines[0], 'STOPPING=1');
    });

scenario('the watchdog is fed while serving and while the last answers go out', async (t) => {
    const sink = await startSink(t, `${makeDir()}/notify`);
    const fake = await startFakeOpenai(t);
    const gw = await startGateway(t, { env: { ...sink.env, WATCHDOG_USEC: '400000' }, config: { 'provider up': providerFor(fake) } });
    fake.always(play.ok({ pieces: Array.from({ length: 20 }, (_, i) => `p${i} `), gapMs: 60 }));
    await sink.wait(/^WATCHDOG=1$/);
    const answer = request(gw, { body: chat('m1', 'x', { stream: true }) });
    await until(() => fake.requests.length === 1, 'the stream to begin');
    gw.signal('SIGTERM');
    await sink.wait(/^STOPPING=1$/);
    sink.lines.length = 0;
    assert.ok(readChatStream((await answer).bytes).done);
    const fed = sink.lines.filter((line) => line === 'WATCHDOG=1').length;
    assert.ok(fed >= 3, `fed ${fed} times in 1.2 s`);
    assert.equal((await gw.waitExit()).code, 0);
});

scenario('a start that fails is never called ready', async (t) => {
    const sink = await startSink(t, `${makeDir()}/notify`);
    const run = await activate(t, { sockets: [], config: { server: { listen: 'systemd' } }, env: sink.env });
    assert.equal((await run.exited).code, 2);
    await sleep(50);
    assert.deepEqual(sink.lines, []);
});
