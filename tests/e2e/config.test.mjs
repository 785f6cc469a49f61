// The command line and the configuration: every problem with its place, precedence, secrets kept.
import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { atEnd, chat, CLIENT_KEY, freePort, makeDir, request, runCommand, scenario, startGateway } from '../lib/gateway.mjs';
import { play, providerFor, startFakeOpenai } from '../lib/fake_openai.mjs';

const SECRET = 'sk-proj-very-secret-credential-0123456789';
const ADMIN = 'admin-secret-that-is-long-enough-42';
const PROXY_PASSWORD = 'proxy-pass-word-77';

/** Writes `text` to a file of its own and runs `command -c FILE`. */
function withFile(command, text, options = {}) {
    const dir = makeDir();
    const file = `${dir}/${options.name ?? 'c.ini'}`;
    writeFileSync(file, text);
    return { file, ...runCommand([command, '-c', file, ...(options.args ?? [])], { dir, env: options.env }) };
}

const DEMO = '[provider demo]\ntype = demo\n';

scenario('check: a good file', async () => {
    const r = withFile('check', `# comment\n; another\n[server]\nlisten = 127.0.0.1:8080\n[auth]\nkeys =\n  k1\n  "with,comma"\n${DEMO}`);
    assert.equal(r.code, 0, r.out);
});

scenario('check: every problem, with file, line, key and what to do', async () => {
    const lines = {
        2: ['[server]', null],
        3: ['lisen = 127.0.0.1:8080', /server\.lisen.*listen/],
        4: ['max_header_bytes = lots', /server\.max_header_bytes/],
        5: ['header_timeout = 5 parsecs', /server\.header_timeout/],
        6: ['max_connections = 0', /server\.max_connections.*\d/],
        7: ['[serverr]', /serverr.*server/],
        8: ['[log]', null],
        9: ['level = loud', /log\.level.*error.*trace/],
        10: ['access = perhaps', /log\.access/],
        11: ['[provider p]', null],
        12: ['type = openia', /type.*openai/],
        13: ['[retry]', null],
        14: ['credentials = -1', /retry\.credentials/],
        15: ['just some words', null],
    };
    const text = `; the first line\n${Object.values(lines).map(([line]) => line).join('\n')}\n`;
    const r = withFile('check', text);
    assert.equal(r.code, 1, r.out);
    for (const [line, [source, pattern]] of Object.entries(lines)) {
        if (pattern === null && source !== 'just some words') continue;
        const message = r.out.split('\n').find((l) => l.includes(`${r.file}:${line}:`));
        assert.ok(message, `nothing about line ${line} (${source}) in:\n${r.out}`);
        if (pattern) assert.match(message, pattern);
    }
});

scenario('serve: a broken file stops the start with 1 and says where', async () => {
    const r = withFile('serve', `[server]\nlisten = 127.0.0.1:${await freePort()}\nfrobnicate = 1\n${DEMO}`);
    assert.equal(r.code, 1, r.out);
    assert.ok(r.out.includes(`${r.file}:3:`), r.out);
});

scenario('a file that is not there, a directory, an unreadable name', async () => {
    const dir = makeDir();
    for (const file of [`${dir}/nothing.ini`, dir]) {
        const r = runCommand(['check', '-c', file], { dir });
        assert.equal(r.code, 1, r.out);
        assert.ok(r.out.includes(file), r.out);
    }
});

scenario('a file in another format gets a sentence about what to do', async () => {
    for (const [name, text] of [
        ['c.yaml', 'server:\n  listen: 127.0.0.1:8080\n'],
        ['c.yml', 'model_list:\n  - model_name: x\n'],
        ['c.json', '{"server":{}}\n'],
        ['c.toml', '[server]\nlisten = "127.0.0.1:8080"\n'],
    ]) {
        const r = withFile('check', text, { name });
        assert.equal(r.code, 1, `${name}: ${r.out}`);
        assert.match(r.out, /INI/i, `${name}: ${r.out}`);
        assert.match(r.out, /YAML|JSON|TOML|import/i, `${name}: ${r.out}`);
        assert.ok(r.out.split('\n').filter(Boolean).length <= 4, `${name}: a flood of messages:\n${r.out}`);
    }
});

scenario('print-config: the values, where they come from, and no secret', async () => {
    const text = `[server]
listen = 127.0.0.1:9999
[auth]
keys = ${CLIENT_KEY}
admin_secret = ${ADMIN}
[upstream]
proxy = http://user:${PROXY_PASSWORD}@127.0.0.1:3128
[provider up]
type = openai
base_url = https://api.openai.com/v1
header.X-Secret-Token = ${SECRET}
credentials =
  ${SECRET}
`;
    const r = withFile('print-config', text, { args: ['--set', 'log.level=warn'], env: { CHATMUX_SERVER_DRAIN_TIMEOUT: '42s' } });
    assert.equal(r.code, 0, r.out);
    for (const secret of [CLIENT_KEY, ADMIN, SECRET, PROXY_PASSWORD]) assert.ok(!r.out.includes(secret), `${secret} in:\n${r.out}`);
    // The origin stands in a comment above its key: the output is a file that can be read again.
    const lines = r.stdout.split('\n');
    const entry = (key) => {
        const at = lines.findIndex((l) => l.startsWith(`${key} =`));
        assert.ok(at > 0, `${key} in:\n${r.stdout}`);
        return lines.slice(at - 1, at + 1).join('\n');
    };
    assert.match(entry('listen'), /^;.*\nlisten = 127\.0\.0\.1:9999$/);
    assert.ok(entry('listen').includes(`${r.file}:2`), entry('listen'));
    assert.match(entry('drain_timeout'), /CHATMUX_SERVER_DRAIN_TIMEOUT\ndrain_timeout = 42s/);
    assert.match(entry('level'), /--set.*\nlevel = warn/);
    assert.match(entry('header_timeout'), /default\nheader_timeout = 10s/);
    const again = withFile('check', r.stdout);
    assert.equal(again.code, 0, again.out);
});

scenario('precedence: defaults < file < environment < command line', async () => {
    const text = `[server]\nbody_timeout = 11s\nheader_timeout = 12s\nkeepalive_timeout = 13s\n${DEMO}`;
    const r = withFile('print-config', text, {
        env: { CHATMUX_SERVER_HEADER_TIMEOUT: '22s', CHATMUX_SERVER_KEEPALIVE_TIMEOUT: '23s' },
        args: ['--set', 'server.keepalive_timeout=33s'],
    });
    assert.equal(r.code, 0, r.out);
    assert.match(r.stdout, /body_timeout = 11s/);
    assert.match(r.stdout, /header_timeout = 22s/);
    assert.match(r.stdout, /keepalive_timeout = 33s/);
});

scenario('the environment: ${VAR}, defaults, a literal ${, provider keys, collisions, unknown names', async () => {
    const text = '[server]\nlisten = 127.0.0.1:${MY_PORT:-4321}\nroute_prefix = ${MY_PREFIX}\n[provider my-up]\ntype = openai\nbase_url = http://127.0.0.1:1/v1\ncredentials = k\nheader.X-A = $${literal}\n';
    const r = withFile('print-config', text, { env: { MY_PREFIX: 'hf', CHATMUX_PROVIDER_MY_UP_BASE_URL: 'http://127.0.0.1:2/v1' } });
    assert.equal(r.code, 0, r.out);
    assert.match(r.stdout, /127\.0\.0\.1:4321/);
    assert.match(r.stdout, /route_prefix = \/hf/);
    assert.match(r.stdout, /base_url = http:\/\/127\.0\.0\.1:2\/v1/);
    const missing = withFile('check', text);
    assert.equal(missing.code, 1, 'an unset variable without a default');
    assert.match(missing.out, /MY_PREFIX/);
    const collide = withFile('check', '[provider a-b]\ntype = demo\n[provider a_b]\ntype = demo\n', { env: { CHATMUX_PROVIDER_A_B_WEIGHT: '2' } });
    assert.equal(collide.code, 1, 'two names collide');
    const unknown = withFile('check', DEMO, { env: { CHATMUX_SERVER_LISEN: '1' } });
    assert.equal(unknown.code, 1, unknown.out);
    assert.match(unknown.out, /CHATMUX_SERVER_LISEN/);
});

scenario('--set and --listen refuse what they do not know', async () => {
    for (const args of [['--set', 'server.lisen=1'], ['--set', 'nonsense'], ['--set', 'log.level=loud'], ['--listen', 'not an address'], ['--listen', '127.0.0.1:99999'], ['--frobnicate']]) {
        const r = withFile('check', DEMO, { args });
        assert.equal(r.code, 1, `${args}: ${r.out}`);
        assert.ok(r.out.length > 0);
    }
});

scenario('lists, cookies with semicolons, long lines, CRLF and a byte order mark', async () => {
    const cookie = `a=1; __Secure-next-auth.session-token=${'x'.repeat(6000)}; # not a comment`;
    const text = `\ufeff[auth]\r\nkeys = one, "two,too" ,three\r\n[provider hix]\r\ntype = hix\r\ncredentials =\r\n  ${cookie}\r\n\r\n  # second\r\n`;
    const r = withFile('check', text);
    assert.equal(r.code, 0, r.out);
});

scenario('a list item that begins with # is an item, not a comment', async (t) => {
    const fake = await startFakeOpenai(t, { keys: ['#sharp;key'] });
    const gw = await startGateway(t, { config: { 'provider up': providerFor(fake) } });
    assert.equal((await request(gw, { body: chat('m1') })).status, 200);
    assert.equal(fake.last.key, '#sharp;key');
});

scenario('a port that is taken: exit 2 and the reason', async (t) => {
    const server = net.createServer();
    await new Promise((done) => server.listen(0, '127.0.0.1', done));
    atEnd(t, () => server.close());
    const r = withFile('serve', `[server]\nlisten = 127.0.0.1:${server.address().port}\n${DEMO}`);
    assert.equal(r.code, 2, r.out);
    assert.ok(r.out.includes(String(server.address().port)), r.out);
    assert.match(r.out, /in use/i);
});

scenario('version, help, and what is not a command', async () => {
    for (const args of [['version'], ['--version']]) {
        const r = runCommand(args);
        assert.equal(r.code, 0, r.out);
        assert.match(r.stdout, /chatmux .*\d/);
    }
    for (const args of [['help'], ['--help'], ['help', 'check'], ['check', '--help'], ['serve', '--help']]) {
        const r = runCommand(args);
        assert.equal(r.code, 0, r.out);
        assert.match(r.stdout, /chatmux/);
    }
    const adapter = runCommand(['help', 'demo']);
    assert.equal(adapter.code, 0, adapter.out);
    assert.match(adapter.stdout, /x\.delay/);
    const wrong = runCommand(['chekc']);
    assert.equal(wrong.code, 1);
    assert.match(wrong.out, /check/, 'the nearest command');
});

scenario('./chatmux.ini is found; --listen, --log-level and --set override it', async (t) => {
    const fake = await startFakeOpenai(t);
    const port = await freePort();
    const gw = await startGateway(t, {
        config: { server: { listen: '127.0.0.1:1' }, 'provider up': providerFor(fake) },
        args: ['--listen', `127.0.0.1:${port}`, '--log-level', 'error', '--set', 'log.access=no', '--set', 'provider.up.models=m2'],
        readyTarget: (g) => ((g.port = port), { port }),
    });
    assert.equal((await request(gw, { body: chat('m2') })).status, 200);
    assert.equal((await request(gw, { body: chat('m1') })).status, 404);
    assert.equal(gw.accessLines().length, 0);
});

scenario('secrets are nowhere in the output of a busy run', async (t) => {
    const fake = await startFakeOpenai(t, { keys: [SECRET, `${SECRET}-b`] });
    const gw = await startGateway(t, {
        config: { log: { level: 'trace', format: 'text' }, auth: { keys: [CLIENT_KEY], admin_secret: ADMIN }, retry: { retries: 0 }, 'provider up': providerFor(fake) },
    });
    fake.key(SECRET, play.error(401, `Incorrect API key provided: ${SECRET}.`, { code: 'invalid_api_key' }));
    const answers = [];
    for (const stream of [false, true, false, true]) answers.push(await request(gw, { body: chat('m1', 'x', { stream }) }));
    fake.always(play.error(400, `bad request with ${SECRET}-b inside`));
    answers.push(await request(gw, { body: chat('m1') }));
    fake.always(play.cutMidStream());
    answers.push(await request(gw, { body: chat('m1', 'x', { stream: true }) }).catch(() => null));
    answers.push(await request(gw, { path: '/metrics' }), await request(gw, { path: '/v1/models' }));
    await gw.stop();
    for (const secret of [SECRET, CLIENT_KEY, ADMIN]) {
        assert.ok(!gw.output.includes(secret), 'a secret in the log');
        for (const answer of answers) if (answer) assert.ok(!answer.text.includes(secret), `a secret in an answer: ${answer.text}`);
    }
    assert.equal(gw.exit.code, 0);
});

scenario('the example file is complete and right', async () => {
    const example = new URL('../../config.example.ini', import.meta.url).pathname;
    const dir = makeDir();
    mkdirSync(`${dir}/state`);
    const r = runCommand(['check', '-c', example], { dir });
    assert.equal(r.code, 0, r.out);
});
