// A worker that trains the jobs of a bucket, under PM2:
//
//   cp templates/ecosystem.config.js .         and change the bucket in it
//   set -a; . ./.env; set +a                   AWS_ACCESS_KEY_ID=…, as in .env.example; none with a role
//   PM2_KILL_SIGNAL=SIGTERM pm2 start ecosystem.config.js && pm2 save
//   pm2 logs sluice-worker
module.exports = {
  apps: [{
    name: "sluice-worker",
    script: ".venv/bin/python",
    args: "-m src.train.job --watch s3://bucket/jobs/",
    interpreter: "none",
    env: { PYTHONUNBUFFERED: "1" },
    treekill: false,         // the signal is for the worker alone, which has the training write a checkpoint
    kill_timeout: 120000,    // milliseconds; what has not ended by then is killed, and taken over
    restart_delay: 10000,
    autorestart: true,
  }],
};
