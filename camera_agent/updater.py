"""Carries out updates: from a desired release to a confirmed (or reverted) one, in small cooperative steps.

    updater = Updater(hal, files, keys, port, report)       # files: regions.open_files(...), never raises for a bad disk
    updater.boot()                                          # once, before the first frame; see "Blocking"

THE AGENT CORE CALLS
    updater.step() -> bool            often; at most ~4 KB of work (see "Blocking"). True: call again soon, there is work.
    updater.on_desired(message)       what protocol.parse_desired() answered; an older generation is ignored.
    updater.on_release(release_id, payload)      payload: memoryview, only read during the call.
    updater.on_block(digest_hex, n, payload)     payload: memoryview, only read during the call.
    updater.status() -> dict          fields for `up/status`: release, trial, generation, slot_bytes, problems (list of words).

THE VISION LOOP CALLS
    choice = updater.model_to_use()   None: no model is to be used. Otherwise an object with
        .release .digest .epoch .sequence .slot ("a"/"b") .trial (bool) .threshold .model (dict or None) .name .version
        .files (list of dicts of the manifest) .content (.size, .readinto(offset, mv)), as hal.load_model wants them.
        Compare by identity: when it `is not` the one in use, free the old model, collect, load the new one.
        The content was hashed and its signature checked before the choice is handed out, and for a trial the attempt
        stands on storage: the core counts nothing.
    updater.trial_frame_ok(inference_ms)     after each live frame classified with a choice whose .trial is True
                                             (calls without a trial are ignored). After `frames` of them: confirmed.
    updater.trial_failed(reason, detail)     the trial's model could not be loaded, its labels do not match, it raised, ...
                                             (reason: a word of messages.UpdateReason). The pointer is flipped back at once and
                                             model_to_use() answers the old model again. True if there was a trial.
    A confirmed choice that cannot be loaded is the core's affair (report an event, reset once: a fresh heap usually helps).

THE PORT is the link itself, or anything with
    port.connected                           whether a subscription can be made now (silence only counts while it is True)
    port.want(topic) / port.unwant(topic)    exact topics, QoS 0; wanting one again asks the broker to repeat it
    port.topics.release(id), port.topics.blob(digest_hex, n)
REPORTS
    report(state, reason=None, detail=None, **extra)         state: messages.UpdateState; extra holds the remaining fields of
                                             `up/update` (generation, release, digest, blocks, bytes, ms) as far as known.

RAM BUDGET: written below, with the code.
"""
