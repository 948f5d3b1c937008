// One of several workers on one port. What they have in common is in keepalive's store, and in messages between them.
'use strict';
const http = require('node:http');

const name = `${process.env.KEEPALIVE_SERVICE}.${process.env.KEEPALIVE_INSTANCE}`;
let motto = null;
let requests = 0;

const server = http.createServer((request, response) => {
    requests += 1;
    const url = new URL(request.url, 'http://any');
    if (request.method === 'POST' && url.pathname === '/motto') {
        change(url.searchParams.get('is'));
    } else if (request.method === 'POST' && url.pathname === '/crash') {
        process.kill(process.pid, 'SIGKILL');
        return;
    }
    response.setHeader('Connection', 'close'); // the next request may go to another worker
    response.end(JSON.stringify({ worker: name, pid: process.pid, requests, motto }) + '\n');
});

function change(to) {
    motto = to;
    process.send({ type: 'set', key: 'motto', value: to }); // for those who start later
    process.send({ type: 'send', to: process.env.KEEPALIVE_SERVICE, data: { motto: to } }); // for those who run
}

function stop() {
    // What has been begun is finished; what waits in the socket, which keepalive has too, the next worker takes.
    server.close(() => process.exit(0));
}

process.on('message', (message) => {
    if (message === 'shutdown') stop();
    else if (message.type === 'message') motto = message.data.motto;
    else if (message.type === 'value' && message.key === 'motto') {
        motto = message.value;
        start();
    }
});
process.on('SIGTERM', () => {}); // follows "shutdown"

function start() {
    server.listen({ fd: Number(process.env.HTTP_FD) }, () => {
        process.send('ready');
        console.log(`${name} is ready, motto ${JSON.stringify(motto)}`);
    });
}

process.send({ type: 'get', key: 'motto' });
