// Records a sound and hands it on as WAV: what browsers record is in formats that not every decoder reads.

/** Returns a recorder: {start(), stop() → File}, or null where this browser cannot record here. */
export function recorder() {
  if (!navigator.mediaDevices?.getUserMedia || !window.MediaRecorder) return null;
  let media, stream, pieces;
  return {
    async start() {
      stream = await navigator.mediaDevices.getUserMedia({ audio: true });
      pieces = [];
      media = new MediaRecorder(stream);
      media.addEventListener("dataavailable", (event) => pieces.push(event.data));
      media.start();
    },
    async stop() {
      const stopped = new Promise((resolve) => media.addEventListener("stop", resolve, { once: true }));
      media.stop();
      await stopped;
      for (const track of stream.getTracks()) track.stop();
      const context = new AudioContext();
      try {
        const sound = await context.decodeAudioData(await new Blob(pieces).arrayBuffer());
        return new File([wav(sound)], "recording.wav", { type: "audio/wav" });
      } finally {
        await context.close();
      }
    },
  };
}

/** Returns the bytes of a WAV file, 16 bits a sample, of an AudioBuffer. */
function wav(sound) {
  const channels = sound.numberOfChannels;
  const size = sound.length * channels * 2;
  const view = new DataView(new ArrayBuffer(44 + size));
  const write = (place, text) => [...text].forEach((letter, index) => view.setUint8(place + index, letter.charCodeAt(0)));
  write(0, "RIFF"); view.setUint32(4, 36 + size, true); write(8, "WAVEfmt ");
  view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, channels, true);
  view.setUint32(24, sound.sampleRate, true); view.setUint32(28, sound.sampleRate * channels * 2, true);
  view.setUint16(32, channels * 2, true); view.setUint16(34, 16, true);
  write(36, "data"); view.setUint32(40, size, true);
  for (let channel = 0; channel < channels; channel++) {
    const samples = sound.getChannelData(channel);
    for (let index = 0; index < samples.length; index++) {
      const value = Math.max(-1, Math.min(1, samples[index]));
      view.setInt16(44 + 2 * (index * channels + channel), Math.round(value * 32767), true);
    }
  }
  return view.buffer;
}
