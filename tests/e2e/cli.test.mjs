// chatmux cred, key, rekey, backup: tables and --json, secrets that are typed or piped, and clear words when something is missing.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { statSync, writeFileSync } from 'node:fs';
import { providerFor, startFakeOpenai } from '../lib/fake_openai.mjs';
import { atEnd, binary, chat, cleanEnv, CLIENT_KEY, freePort, makeDir, request, sanitized, scenario, startGateway, toIni, until } from '../lib/gateway.mjs';

const SECRET = 'adm-secret-0815-4711';
const AUTH = { auth: { keys: [CLIENT_KEY], admin_secret: SECRET } };
const UP = { 'provider up': { type: 'openai', base_url: 'http://127.0.0.1:1/v1', models: ['m1'], credentials: ['sk-configured-0001'] } };

/** Runs a command of the binary beside this process: {code, stdout, stderr}. */
function cli(args, { input = '', env = {}, dir = makeDir() } = {}) {
    return new Promise((done) => {
        const child = spawn(binary, args, { cwd: dir, env: cleanEnv(dir, env) });
        const out = { code: null, stdout: '', stderr: '' };
        for (const name of ['stdout', 'stderr']) child[name].setEncoding('utf8').on('data', (text) => (out[name] += text));
        child.stdin.on('error', () => {}); // it may not want any
        child.stdin.end(input);
        child.once('close', (code) => done({ ...out, code }));
    });
}

/** A gateway, and the client commands with its configuration. */
async function start(t, config = UP) {
    const gw = await startGateway(t, { config: { ...AUTH, ...config } });
    const run = (line, options = {}) => cli([...(Array.isArray(line) ? line : line.split(' ')), '-c', gw.file], { dir: gw.dir, ...options });
    const good = async (line, options) => {
        const r = await run(line, options);
        assert.equal(r.code, 0, `${line}: ${r.code} ${r.stdout}${r.stderr}`);
        return r.stdout;
    };
    return { gw, run, good };
}

/** The rows of a table by the names of its columns, which are found by the position of their heads. */
function table(text) {
    const [heads, ...lines] = text.trimEnd().split('\n');
    const cells = (line) => line.trim().split(/ {2,}/);
    const names = cells(heads);
    return lines.map((line) => Object.fromEntries(cells(line).map((cell, i) => [names[i], cell])));
}

scenario('credentials from the command line', async (t) => {
    const { good, run } = await start(t);
    assert.equal(await good('cred add up --label mine --weight 3 --max-inflight 2', { input: 'sk-piped-secret-7777\n' }), 'credential 2 (mine) is added: ok\n');
    const text = await good('cred list');
    const rows = table(text);
    assert.deepEqual(rows.map((r) => [r.ID, r.PROVIDER, r.LABEL, r.HINT, r.SOURCE, r.STATE]), [
        ['1', 'up', 'up#1', '0001', 'config', 'ok'],
        ['2', 'up', 'mine', '7777', 'api', 'ok'],
    ]);
    const [heads, first, second] = text.split('\n');
    for (const name of ['PROVIDER', 'LABEL', 'STATE']) assert.ok(heads.indexOf(name) === first.indexOf(name === 'PROVIDER' ? 'up ' : name === 'LABEL' ? 'up#1' : 'ok '), text);
    assert.equal(first.indexOf('config'), second.indexOf('api'), text);

    assert.equal(await good('cred disable mine'), 'credential 2 is disabled\n');
    assert.equal(table(await good('cred list --provider up'))[1].STATE, 'disabled');
    assert.equal(await good('cred enable 2'), 'credential 2 is enabled\n');
    assert.equal(await good('cred reset 1 mine'), 'credential 1 is reset\ncredential 2 is reset\n');
    const json = JSON.parse(await good('cred list --json --provider=up'));
    assert.deepEqual([json.next, json.data.map((c) => [c.id, c.weight, c.max_inflight])], [null, [['1', 1, 0], ['2', 3, 2]]]);
    assert.equal(table(await good('cred list --provider nobody')).length, 0);
    assert.equal(await good('cred rm mine'), 'credential 2 is removed\n');

    const configured = await run('cred rm 1');
    assert.equal(configured.code, 1);
    assert.match(configured.stderr, /configuration file/);
    const missing = await run('cred rm nobody 99');
    assert.equal(missing.code, 1);
    assert.match(missing.stderr, /0 credentials are called "nobody"/);
    assert.match(missing.stderr, /no credential (")?99/, 'the second is tried all the same');
});

scenario('a list of more than one page', async (t) => {
    const credentials = Array.from({ length: 1003 }, (_, i) => `sk-configured-${i}`);
    const { good } = await start(t, { 'provider up': { ...UP['provider up'], credentials } });
    assert.equal(table(await good('cred list')).length, 1003);
    assert.equal(new Set(JSON.parse(await good('cred list --json')).data.map((c) => c.id)).size, 1003);
    assert.match(await good('cred disable up#1003'), /^credential \d+ is disabled\n$/);
});

scenario('a label that two credentials share asks for the ID', async (t) => {
    const { good, run } = await start(t);
    for (const n of [1, 2]) await good('cred add up --label same', { input: `sk-secret-number-${n}` });
    const r = await run('cred rm same');
    assert.equal(r.code, 1);
    assert.match(r.stderr, /2 credentials are called "same": say which one by its ID/);
    assert.equal(table(await good('cred list')).length, 3);
});

scenario('check tells what the platform says', async (t) => {
    const fake = await startFakeOpenai(t, { keys: ['sk-up-good-one-1111'], strict: false });
    const { good, run } = await start(t, { 'provider up': providerFor(fake) });
    assert.match(await good('cred check 1'), /^credential 1 is good: /);
    await good('cred add up --label bad', { input: 'sk-up-wrong-one-2222' });
    const bad = await run('cred check bad');
    assert.equal(bad.code, 1);
    assert.match(bad.stdout, /^credential 2 is not good: .*\(disabled, \d+ ms\)/);
    assert.equal(JSON.parse((await run('cred check 1 --json')).stdout).ok, true);
});

scenario('a secret as an argument works, with a warning, and is never repeated', async (t) => {
    const { good, run, gw } = await start(t);
    const r = await run(['cred', 'add', 'up', 'sk-in-the-open-5555']);
    assert.equal(r.code, 0, r.stderr);
    assert.match(r.stderr, /history/);
    assert.ok(!(r.stdout + r.stderr).includes('sk-in-the-open-5555'));
    assert.equal((await run('cred add up')).code, 1, 'nothing was piped in');
    const twin = await run('cred add up', { input: 'sk-in-the-open-5555' });
    assert.equal(twin.code, 1);
    assert.ok(!(twin.stdout + twin.stderr + gw.output).includes('sk-in-the-open-5555'));
    assert.ok(!(await good('cred list --json')).includes('sk-in-the-open'));
});

const script = spawnSync('script', ['--version']);

scenario('a secret that is typed is not seen', { skip: script.error ? 'script(1) is not here' : sanitized }, async (t) => {
    const { gw, good } = await start(t);
    const child = spawn('script', ['-qec', `${binary} cred add up --label typed -c ${gw.file}`, '/dev/null'], { cwd: gw.dir, env: cleanEnv(gw.dir) });
    let out = '';
    atEnd(t, () => child.kill('SIGKILL'));
    child.stdout.setEncoding('utf8').on('data', (text) => (out += text));
    const closed = new Promise((done) => child.once('close', done));
    await until(() => /Secret.*: /.test(out), 'the prompt');
    child.stdin.write('sk-typed-secret-3333\r');
    assert.equal(await closed, 0, out);
    assert.ok(!out.includes('sk-typed'), out);
    assert.match(out, /\(typed\) is added/);
    assert.equal(table(await good('cred list')).at(-1).HINT, '3333');
});

scenario('keys from the command line', async (t) => {
    const { gw, good, run } = await start(t, { 'provider demo': { type: 'demo' } });
    const made = await run('key add team --rpm 5 --models demo,other --budget 2.50 --budget-period month --expires 30d --max-parallel 4 --tpm 5000000');
    assert.equal(made.code, 0, made.stderr);
    assert.match(made.stdout, /^sk-cmx-\w{47}\n$/, 'the key alone, for KEY=$(chatmux key add …)');
    assert.match(made.stderr, /shown this once/);
    const key = made.stdout.trim();
    const answer = await request(gw, { body: chat('demo'), key });
    assert.deepEqual([answer.status, answer.headers['x-ratelimit-limit-requests']], [200, '5']);

    const rows = table(await good('key list'));
    assert.deepEqual(rows.map((r) => [r.ID, r.NAME, r.SOURCE, r.RPM, r.TPM, r.PARALLEL, r.BUDGET, r.EXPIRES, r.MODELS]), [
        ['-', 'key#1', 'config', '-', '-', '-', '-', '-', 'all'],
        [rows[1].ID, 'team', 'api', '5', '5000000', '4', '$2.5/month', 'in 30 d', 'demo, other'],
    ]);
    assert.ok(!(await good('key list --json')).includes(key));

    const own = await run('key add own --key --json', { input: 'a-key-of-my-own-9999' });
    assert.equal(own.code, 0, own.stderr);
    assert.equal(JSON.parse(own.stdout).hint, '9999');
    assert.equal((await request(gw, { body: chat('demo'), key: 'a-key-of-my-own-9999' })).status, 200);
    assert.match(await good('key rm team own'), /^key \d+ is removed\nkey \d+ is removed\n$/);
    assert.equal((await request(gw, { body: chat('demo'), key })).status, 401);
    assert.equal(table(await good('key list')).length, 1);

    for (const line of ['key add x --rpm many', 'key add x --budget 1e3', 'key add x --budget 0x10', 'key add x --expires sometime', 'key add x --budget-period year']) {
        const r = await run(line);
        assert.equal(r.code, 1, line);
        assert.ok(r.stderr.length > 0 && r.stdout === '', line);
    }
    assert.equal(table(await good('key list')).length, 1);
});

scenario('a new master key and a backup', async (t) => {
    const { gw, good, run } = await start(t);
    await good('cred add up --label kept', { input: 'sk-kept-secret-4444' });
    assert.match(await good('rekey'), /master\.key/);
    assert.match(await good('backup copy.db'), /master key elsewhere/);
    assert.equal(statSync(`${gw.dir}/copy.db`).mode & 0o777, 0o600);
    const again = await run('backup copy.db');
    assert.equal(again.code, 1);
    assert.ok(again.stderr.includes('copy.db'), again.stderr);
    await gw.restart();
    assert.equal(table(await good('cred list')).at(-1).LABEL, 'kept');
});

scenario('the gateway by environment, without a configuration', async (t) => {
    const { gw } = await start(t);
    const env = { CHATMUX_ADMIN_URL: gw.url, CHATMUX_ADMIN_SECRET: SECRET };
    const r = await cli(['cred', 'list'], { env });
    assert.equal(r.code, 0, r.stderr);
    assert.equal(table(r.stdout).length, 1);
    const wrong = await cli(['key', 'list'], { env: { ...env, CHATMUX_ADMIN_SECRET: 'wrong' } });
    assert.deepEqual([wrong.code, wrong.stdout], [1, '']);
    assert.match(wrong.stderr, /refused the admin secret/);
});

scenario('no gateway, no secret, no admin API', async (t) => {
    const dir = makeDir();
    const port = await freePort();
    const write = (config) => writeFileSync(`${dir}/chatmux.ini`, toIni(config));
    write({ server: { listen: `127.0.0.1:${port}` }, ...AUTH, ...UP });
    for (const line of ['cred list', 'cred rm 1 2 3', 'key add x', 'rekey', 'backup x.db']) {
        const r = await cli(line.split(' '), { dir });
        assert.equal(r.code, 3, `${line}: ${r.stderr}`);
        assert.equal(r.stdout, '');
        assert.match(r.stderr, /no answer from the gateway at http:\/\/127\.0\.0\.1:\d+.*\nStart it \(chatmux serve\)/);
        assert.equal(r.stderr.match(/no answer/g).length, 1, 'one is enough');
    }
    write({ server: { listen: `127.0.0.1:${port}` }, ...UP });
    const r = await cli(['cred', 'list'], { dir });
    assert.equal(r.code, 1);
    assert.match(r.stderr, /admin_secret = /);

    const gw = await startGateway(t, { config: { auth: { keys: [CLIENT_KEY] }, 'provider demo': { type: 'demo' } } });
    const off = await cli(['cred', 'list'], { env: { CHATMUX_ADMIN_URL: gw.url, CHATMUX_ADMIN_SECRET: SECRET } });
    assert.equal(off.code, 1);
    assert.ok(off.stderr.length > 20, off.stderr);
});

scenario('usage', async (t) => {
    const { run } = await start(t);
    for (const [line, words] of [
        ['cred', 'list, add, rm'],
        ['cred lst', 'not "lst"'],
        ['cred list extra', '"extra"'],
        ['cred rm', 'ID or label'],
        ['cred add', 'name of a provider'],
        ['cred add nobody', 'nobody'],
        ['cred list --rpm 5', '--rpm'],
        ['key', 'list, add or rm'],
        ['key add', 'a name'],
        ['key rm', 'ID or name'],
        ['backup', 'file to write'],
        ['rekey now', 'no arguments'],
        ['serve --json', '--json'],
    ]) {
        const r = await run(line, { input: 'sk-some-secret-1234' });
        assert.deepEqual([r.code, r.stdout], [1, ''], `${line}: ${r.stdout}${r.stderr}`);
        assert.ok(r.stderr.includes(words), `${line}: ${r.stderr}`);
    }
    for (const command of ['cred', 'key', 'rekey', 'backup']) {
        const asked = await cli([command, '--help']);
        assert.deepEqual([asked.code, asked.stderr], [0, '']);
        assert.ok(asked.stdout.startsWith(`chatmux ${command}`), asked.stdout);
        assert.equal((await cli(['help', command])).stdout, asked.stdout);
    }
});

scenario('control characters of labels do not reach the terminal', async (t) => {
    const { gw, good } = await start(t);
    const made = await request(gw, { path: '/admin/api/credentials', key: SECRET, body: { provider: 'up', secret: 'sk-some-secret-1234', label: 'a\u001b[31mb\nc' } });
    assert.equal(made.status, 201);
    const text = await good('cred list');
    assert.ok(!text.includes('\u001b'));
    assert.equal(table(text).length, 2);
});
