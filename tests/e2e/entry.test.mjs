// The first process of the container image, as a process: folders of root, rights that are missing. As root only.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { chmodSync, chownSync, copyFileSync, cpSync, existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { atEnd, binary, freePort, makeDir, probe, scenario, until } from '../lib/gateway.mjs';

const tree = (path) => fileURLToPath(new URL(`../../${path}`, import.meta.url));
const USER = 10001;
const options = { skip: process.getuid() !== 0 && 'needs root' };

/** A folder that every user can get into, as / of an image is. */
function openDir() {
    const dir = makeDir();
    chmodSync(dir, 0o755);
    return dir;
}

/** What the image has, in a place that every user may read; the tree may lie in a home. */
const image = openDir();
const entry = join(image, 'entry.sh');
copyFileSync(tree('packaging/entry.sh'), entry);
copyFileSync(binary, join(image, 'chatmux'));
const libraries = join(image, 'lib');
if (existsSync(tree('third_party/prefix/lib'))) cpSync(tree('third_party/prefix/lib'), libraries, { recursive: true, verbatimSymlinks: true });

/** The container: `as` another user than root, `without` capabilities; {output, exit, pid, stop()}. */
function start(t, dir, env, { args = ['serve'], as, without } = {}) {
    const launcher = [];
    if (as) launcher.push('setpriv', '--reuid', String(as), '--regid', String(as), '--clear-groups');
    if (without) launcher.push('setpriv', '--bounding-set', without, '--inh-caps', without);
    const [program, ...rest] = [...launcher, entry, ...args];
    const run = { output: '', exit: null };
    const child = spawn(program, rest, {
        cwd: dir,
        env: { PATH: `${image}:${process.env.PATH}`, LD_LIBRARY_PATH: libraries, CHATMUX_CONTAINER: 'yes', ...env },
        stdio: ['ignore', 'pipe', 'pipe'],
    });
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => (run.output += text));
    run.ended = new Promise((done) => child.once('close', (code) => done((run.exit = { code }))));
    run.pid = child.pid;
    run.stop = async () => {
        if (!run.exit) process.kill(child.pid, 'SIGTERM');
        await run.ended;
    };
    atEnd(t, run.stop);
    return run;
}

const ready = (run, port) =>
    until(async () => run.exit || (await probe({ port })) === 200, 'the gateway to be ready', 15_000).then(() => {
        if (run.exit) throw new Error(`it ended: ${run.output}`);
    });
const userOf = (pid) => /^Uid:\s+(\d+)\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')).slice(1).map(Number);

scenario('a folder of root is taken over, and what others keep in it is not', options, async (t) => {
    const dir = openDir();
    const state = join(dir, 'data', 'chatmux');
    mkdirSync(join(dir, 'data'));
    writeFileSync(join(dir, 'data', 'hix-ai-2-api.db'), 'of another program');
    const port = await freePort();
    const run = start(t, dir, { BACKEND_SECRET: '123456', PORT: String(port), CHATMUX_STORE_STATE_DIR: state });
    await ready(run, port);
    assert.deepEqual(userOf(run.pid), [USER, USER]);
    assert.deepEqual([statSync(state).uid, statSync(join(state, 'chatmux.db')).uid], [USER, USER]);
    assert.equal(statSync(state).mode & 0o777, 0o700);
    assert.deepEqual([statSync(join(dir, 'data')).uid, statSync(join(dir, 'data', 'hix-ai-2-api.db')).uid], [0, 0]);
    await run.stop();

    // files that root made meanwhile, and one that is no file of ours
    chownSync(join(state, 'chatmux.db'), 0, 0);
    chownSync(join(state, 'master.key'), 0, 0);
    writeFileSync(join(state, 'notes.txt'), 'mine');
    const again = start(t, dir, { BACKEND_SECRET: '123456', PORT: String(port), CHATMUX_STORE_STATE_DIR: state });
    await ready(again, port);
    assert.equal(statSync(join(state, 'chatmux.db')).uid, USER);
    assert.equal(statSync(join(state, 'notes.txt')).uid, 0);
    const status = start(t, dir, { BACKEND_SECRET: '123456', PORT: String(port) }, { args: ['status'] });
    await status.ended;
    assert.equal(status.exit.code, 0, status.output);
});

scenario('a container that is no root serves from a folder of its own, and says what a foreign one needs', options, async (t) => {
    const dir = openDir();
    const state = join(dir, 'state');
    mkdirSync(state);
    const port = await freePort();
    const env = { CHATMUX_AUTH_KEYS: 'sk-entry-4711', PORT: String(port), CHATMUX_STORE_STATE_DIR: state };
    const refused = start(t, dir, env, { as: USER });
    await refused.ended;
    assert.equal(refused.exit.code, 2, refused.output);
    assert.match(refused.output, new RegExp(`user ${USER} cannot write .*state.*chown ${USER}`));
    chownSync(state, USER, USER);
    const run = start(t, dir, env, { as: USER });
    await ready(run, port);
    assert.deepEqual(userOf(run.pid), [USER, USER]);
});

scenario('root without the rights to change its user says so', options, async (t) => {
    const dir = openDir();
    const run = start(t, dir, { CHATMUX_AUTH_KEYS: 'sk-entry-4711', PORT: '1' }, { without: '-setuid,-setgid,-chown' });
    await run.ended;
    assert.equal(run.exit.code, 1);
    assert.match(run.output, /may not become user 10001.*--user 10001:10001/);
});

scenario('problems of the configuration are told as ever, and other commands pass', options, async (t) => {
    const dir = openDir();
    const wrong = start(t, dir, { PORT: '8080' });
    await wrong.ended;
    assert.equal(wrong.exit.code, 1);
    assert.match(wrong.output, /environment PORT: server\.listen: 0\.0\.0\.0:8080 lets other machines in/);
    const version = start(t, dir, {}, { args: ['version'] });
    await version.ended;
    assert.match(version.output, /^chatmux \d/);
});
