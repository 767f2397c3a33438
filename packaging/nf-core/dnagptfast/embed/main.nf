process DNAGPTFAST_EMBED {
    tag "$meta.id"
    label 'process_medium'

    conda "${moduleDir}/environment.yml"
    container "dnagpt-fast:0.1.0"

    input:
    tuple val(meta), path(genome)
    val model

    output:
    tuple val(meta), path("*.npy"), emit: vectors
    tuple val(meta), path("*.npy.names"), emit: names
    tuple val("${task.process}"), val('dnagpt-fast'), eval("pip show dnagpt-fast | sed -n 's/^Version: //p'"), topic: versions, emit: versions_dnagptfast

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    def prefix = task.ext.prefix ?: "${meta.id}"
    """
    export OMP_NUM_THREADS=$task.cpus
    dnagpt-fast embed \\
        $args \\
        --out ${prefix}.npy \\
        $model \\
        $genome
    """

    stub:
    def prefix = task.ext.prefix ?: "${meta.id}"
    """
    touch ${prefix}.npy
    touch ${prefix}.npy.names
    """
}
