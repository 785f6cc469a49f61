// What hixai2api leaves behind: its three tables, as mysqldump writes them and as its file of SQLite.
import { createHash } from 'node:crypto';

const sha256 = (text) => createHash('sha256').update(text).digest('hex');

/** The key under which it kept a conversation: Go's encoding/json of the last question and answer, without what stands for line ends. */
export function pairName(question, answer) {
    const html = { '<': '\\u003c', '>': '\\u003e', '&': '\\u0026', '\u2028': '\\u2028', '\u2029': '\\u2029' };
    const text = JSON.stringify([{ role: 'user', content: question }, { role: 'assistant', content: answer.trim() }]);
    return sha256(text.replace(/[<>&\u2028\u2029]/g, (c) => html[c]).replace(/\\[ntr]/g, ''));
}

export const cookieOf = (session) => `__Secure-next-auth.session-token=${session}`;
const AT = '2025-03-01 10:00:00';

/** keys: [key, remark]; chats: {session, model, id, question, answer, usedAt?, hashOnly?}. */
const TABLES = {
    api_keys: {
        columns: ['id varchar(64) NOT NULL', 'api_key varchar(255) NOT NULL', 'remark varchar(900)', 'update_time datetime', 'create_time datetime NOT NULL'],
        rows: ({ keys }) => keys.map(([key, remark], i) => [String(i), key, remark, null, AT]),
    },
    chats: {
        columns: ['id varchar(64) NOT NULL', 'cookie text', 'model varchar(255) NOT NULL', 'cookie_hash varchar(255) NOT NULL', 'hix_chat_id varchar(255) NOT NULL',
            'last_messages_pair longtext', 'last_messages_pair_sha256_hash varchar(255) NOT NULL', 'update_time datetime', 'create_time datetime NOT NULL'],
        rows: ({ chats }) => chats.map(({ session, model, id, question, answer, usedAt = AT, hashOnly = false }, i) => [
            String(i), hashOnly ? null : cookieOf(session), model, sha256(cookieOf(session)), id, JSON.stringify([question, answer]), pairName(question, answer), usedAt, AT,
        ]),
    },
    cookies: {
        columns: ['id varchar(64) NOT NULL', 'cookie text', 'cookie_hash varchar(255) NOT NULL', 'credit bigint NOT NULL', 'advanced_credit bigint NOT NULL',
            'is_active_sub tinyint(1) NOT NULL', 'remark varchar(900)', 'update_time datetime', 'create_time datetime NOT NULL'],
        rows: ({ sessions }) => sessions.map((s, i) => [String(i), cookieOf(s), sha256(cookieOf(s)), 50, 0, 0, `account ${i}`, null, AT]),
    },
};

function literal(value) {
    if (value === null) return 'NULL';
    return typeof value === 'number' ? String(value) : `'${value.replaceAll('\\', '\\\\').replaceAll("'", "\\'").replaceAll('"', '\\"').replaceAll('\n', '\\n')}'`;
}

/** A dump of the tables, in the order of their names. */
export function dumpOf(sessions, keys, chats = []) {
    const lines = ['-- MySQL dump 10.13'];
    for (const [name, { columns, rows }] of Object.entries(TABLES)) {
        const values = rows({ sessions, keys, chats }).map((row) => `(${row.map(literal)})`);
        lines.push(`CREATE TABLE \`${name}\` (\n${columns.map((c) => `  \`${c.replace(' ', '` ')},\n`).join('')}  PRIMARY KEY (\`id\`)\n);`);
        if (values.length > 0) lines.push(`INSERT INTO \`${name}\` VALUES ${values};`);
    }
    return [...lines, ''].join('\n');
}

export function sqliteFile(path, sessions, keys, chats = []) {
    const { DatabaseSync } = process.getBuiltinModule('node:sqlite');
    const db = new DatabaseSync(path);
    for (const [name, { columns, rows }] of Object.entries(TABLES)) {
        db.exec(`CREATE TABLE \`${name}\` (${columns.map((c) => `\`${c.replace(' ', '` ')}`)}, PRIMARY KEY (\`id\`))`);
        for (const row of rows({ sessions, keys, chats })) db.prepare(`INSERT INTO ${name} VALUES (${row.map(() => '?')})`).run(...row.map((v) => (v === AT ? `${AT}+08:00` : v)));
    }
    db.close();
}
