// What Node itself offers: a primary process that hands connections to forks of the measured app.
const cluster = require('node:cluster');

if (cluster.isPrimary) {
  for (let worker = 0; worker < Number(process.env.WORKERS); worker++) {
    cluster.fork();
  }
  cluster.on('exit', () => cluster.fork());
} else {
  require('./app.js');
}
