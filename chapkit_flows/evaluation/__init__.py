"""How good: pure functions over frames.

    splits      which periods a model learns from, and which it forecasts
    covariates  what stands for the weather ahead
    metrics     what each score is: formula, source, unit, which way is better
    scores      scores as rows per fold, place and horizon, and their means
    comparison  skill against a reference, and whether it can be chance
    gates       rules that a candidate must pass, and the evidence
    drift       whether recent data is still like the training data
    charts      forecasts as pictures; score_charts: scores as pictures

Of the other rooms only `refs` and `errors` are known here: callers say what a season is, and bring the frames.
"""
