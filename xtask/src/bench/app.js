// The measured app: a Node server that knows nothing of clustering.
const http = require('node:http');

http
  .createServer((request, response) => {
    response.end(`${process.pid}\n`);
  })
  .listen(Number(process.env.PORT || 8080), '127.0.0.1');
